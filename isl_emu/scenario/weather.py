"""The weather over a ground terminal: clouds and turbulence for light, rain for radio."""

from __future__ import annotations

from pydantic import Field, model_validator

from isl_emu.scenario.quantities import Duration, Frequency, Loss, RainHeight, RainRate, Record


class Clouds(Record):
    """Clear and cloudy spells of exponentially distributed length; no light passes a cloud.

    `availability`: the long-run share of clear time. `mean_duration`: of a cloudy spell.
    """

    availability: float = Field(gt=0.0, lt=1.0)
    mean_duration_ns: Duration = Field(alias="mean_duration")


class Scintillation(Record):
    """Losses by turbulence that vary at random: their mean towards the zenith, and how often they are drawn anew."""

    mean_loss_ratio: float = Field(gt=0.0, le=0.5)
    interval_ns: Duration = Field(alias="interval", default=1_000_000_000)


class Rain(Record):
    """Rain on radio links (Recommendation ITU-R P.618), and the coding that follows it.

    `margin`: the attenuation that is borne at the full rate. What is not given of the climate comes from the maps of
    the ITU: `rain_rate`, exceeded 0.01 % of the year; `rain_height` above mean sea level; `rain_probability`.
    """

    downlink_frequency_ghz: Frequency = Field(alias="downlink_frequency")
    uplink_frequency_ghz: Frequency = Field(alias="uplink_frequency")
    margin_db: Loss = Field(alias="margin", default=3.0)
    rain_rate_mm_h: RainRate | None = Field(alias="rain_rate", default=None)
    rain_height_km: RainHeight | None = Field(alias="rain_height", default=None)
    rain_probability: float | None = Field(gt=0.0, lt=1.0, default=None)
    exceeded_at_start: float | None = Field(ge=1e-5, lt=1.0, default=None)


class Weather(Record):
    """What is given is modelled; without it the sky is clear."""

    clouds: Clouds | None = None
    scintillation: Scintillation | None = None
    rain: Rain | None = None

    @model_validator(mode="after")
    def _something(self) -> Weather:
        if self.clouds is None and self.scintillation is None and self.rain is None:
            raise ValueError("is empty, but it holds clouds, scintillation or rain; give one of them, or remove it")
        return self
