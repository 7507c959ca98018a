"""What solar panels give."""

from __future__ import annotations

from dataclasses import dataclass

from isl_emu.arrays import Floats

SOLAR_CONSTANT_W_M2 = 1361.0  # IAU 2015 Resolution B3; G. Kopp and J. Lean, Geophys. Res. Lett. 38 (2011), L01706


@dataclass(frozen=True)
class Panels:
    """Flat solar panels of N satellites; arrays of shape (N,).

    Args:
        area_m2: of the panel.
        efficiency: electric over incident power, of the whole area.
    """

    area_m2: Floats
    efficiency: Floats

    def power_w(self, incidence: Floats) -> Floats:
        """The electric power, shape (..., N).

        At the Sun's mean distance, which neglects 3.4 % over the year. Efficiency does not depend on temperature or
        angle.

        Args:
            incidence: cosine between the panel's normal and the Sun, 0 where it sees no Sun; shape (..., N).
        """
        return SOLAR_CONSTANT_W_M2 * self.area_m2 * self.efficiency * incidence
