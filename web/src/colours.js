// M. Okabe and K. Ito, Color universal design, 2008: told apart by every eye, as in the report.

import { Color } from "three";

export const COLOURS = (dark) => ({
  laser: dark ? "#56b4e9" : "#0072b2", ground: "#e69f00", fault: "#d55e00", satellite: dark ? "#dfe8f2" : "#33475b", server: "#009e73",
  question: dark ? "#f0e442" : "#000000", transfer: "#cc79a7", picked: dark ? "#ffffff" : "#000000", unknown: "#8a8a8a",
});

const RAMP = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"].map((tone) => new Color(tone)); // viridis

export function loadColour(load) {
  const exact = Math.min(Math.max(load, 0), 1) * (RAMP.length - 1), k = Math.min(Math.floor(exact), RAMP.length - 2);
  return RAMP[k].clone().lerp(RAMP[k + 1], exact - k);
}

export const rampCss = () => `linear-gradient(90deg, ${RAMP.map((one) => one.getStyle()).join(", ")})`;
