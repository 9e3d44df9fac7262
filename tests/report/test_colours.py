"""Colours can be told apart without red or green receptors, and seen on their ground."""

import itertools

import numpy as np
import pytest

from isoloss.report.runs import distinct_colours, ramp_stops

# Machado, Oliveira & Fernandes (2009), doi:10.1109/TVCG.2009.113: severity 1.0, linear sRGB
SIGHTS = {
    "all receptors": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868],
                            [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968],
                              [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
# Ottosson (2020), "A perceptual color space for image processing"
TO_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                     [0.2119034982, 0.6806995451, 0.1073969566],
                     [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                   [1.9779984951, -2.4285922050, 0.4505937099],
                   [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
GROUNDS = ("#ffffff", "#14171a")
SCHEMES = pytest.mark.parametrize("scheme", [0, 1], ids=["on white", "on black"])
SEEN = pytest.mark.parametrize("sight", SIGHTS)


def linear(colour):
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(colour, sight):
    return TO_LAB @ np.cbrt(TO_CONES @ np.clip(SIGHTS[sight] @ linear(colour), 0, 1))


def apart(one, other, sight):
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


def contrast(one, other):
    weights = np.array([0.2126, 0.7152, 0.0722])  # relative luminance, WCAG 2.2
    low, high = sorted(float(linear(c) @ weights) + 0.05 for c in (one, other))
    return high / low


def distinct(scheme):
    return [distinct_colours(place, 7)[scheme] for place in range(7)]


@SCHEMES
@SEEN
def test_seven_names_are_told_apart_by_every_reader(scheme, sight):
    # 0.02 is about what is just told apart side by side; lines lie further from their key
    closest = min(apart(*two, sight) for two in itertools.combinations(distinct(scheme), 2))
    assert closest > 0.12


@SCHEMES
@SEEN
def test_neighbours_along_the_ramp_are_told_apart_and_it_goes_one_way(scheme, sight):
    stops = ramp_stops()[scheme]
    assert min(apart(*two, sight) for two in itertools.pairwise(stops)) > 0.04
    lightness = [lab(stop, sight)[0] for stop in stops]
    # in print without colours the order is that of grey
    assert lightness == sorted(lightness)


@SCHEMES
def test_every_colour_is_seen_on_its_ground(scheme):
    # WCAG 2.2, 1.4.11: graphical objects, 3:1
    for colour in (*distinct(scheme), *ramp_stops()[scheme]):
        assert contrast(colour, GROUNDS[scheme]) >= 3, colour
