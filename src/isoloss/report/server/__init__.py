"""The page while a run goes on, and what is behind it as JSON; reads stores and changes nothing."""
