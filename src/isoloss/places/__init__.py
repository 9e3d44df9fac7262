"""Folders by name: of this machine, of an object store, of another machine."""

from isoloss.places.names import cache_folder, folder_name, protocol_of, shown, url_of

__all__ = ["cache_folder", "folder_name", "protocol_of", "shown", "url_of"]
