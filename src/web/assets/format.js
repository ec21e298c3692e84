// Numbers and times as people read them: each with its unit.

const NARROW = "\u202f"; // narrow no-break space, between number and unit

/** Three significant digits without an exponent. */
function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6) return value.toExponential(1);
  if (size >= 100) return String(Math.round(value));
  if (size >= 10) return trim(value.toFixed(1));
  if (size >= 0.001) return trim(value.toPrecision(2));
  return value.toExponential(0);
}

const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);

/** A value of a feature in its unit. */
export function value(number, unit) {
  if (number === null || number === undefined) return "missing";
  switch (unit) {
    case "ratio":
      return `${digits(number * 100)}${NARROW}%`;
    case "seconds":
      return seconds(number);
    case "bytes":
      return bytes(number);
    case "celsius":
      return `${digits(number)}${NARROW}°C`;
    case "per_second":
      return `${digits(number)}${NARROW}/s`;
    default:
      return digits(number);
  }
}

function seconds(number) {
  const size = Math.abs(number);
  if (size === 0) return `0${NARROW}s`;
  if (size < 1e-3) return `${digits(number * 1e6)}${NARROW}µs`;
  if (size < 1) return `${digits(number * 1e3)}${NARROW}ms`;
  if (size < 120) return `${digits(number)}${NARROW}s`;
  return duration(number);
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (Math.abs(number) >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${digits(number)}${NARROW}${units[at]}`;
}

/** A span of time in one or two units. */
export function duration(total, units = 2) {
  const all = Math.max(0, Math.round(total));
  const parts = [
    [Math.floor(all / 86400), "d"],
    [Math.floor(all / 3600) % 24, "h"],
    [Math.floor(all / 60) % 60, "min"],
    [all % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return `0${NARROW}s`;
  const two = parts.slice(first, first + units).filter(([count]) => count > 0);
  return two.map(([count, unit]) => `${count}${NARROW}${unit}`).join(" ");
}

/** A risk with two decimals. */
export const risk = (number) => (number === null ? "–" : number.toFixed(2));

/** A word of the API as people write it: at_risk → at risk. */
export const words = (word) => word.replaceAll("_", " ");

/** A feature's value beside what it usually is: disk_await_write 84 ms (usually 3 ms). */
export function driver(top) {
  const usual = top.usual === null ? "" : ` (usually ${value(top.usual, top.unit)})`;
  return `${top.feature} ${value(top.value, top.unit)}${usual}`;
}

/** One of the six, where the unit alone says too little. */
export function basic(one) {
  if (one.value === null) return "missing";
  if (one.feature === "temp_vs_crit") {
    // Without a critical temperature from the sensor the feature is degrees over 100.
    return one.source === "hwmon_crit"
      ? `${value(one.value, "ratio")} of critical`
      : value(one.value * 100, "celsius");
  }
  const words = MEANS[one.feature];
  const number = value(one.value, one.unit);
  return words === undefined ? number : `${number} ${words}`;
}

/** What the numbers are of, where the name of the question does not say it. */
const MEANS = {
  load_per_core: "load per core",
  tcp_retrans_ratio: "sent again",
  tcp_timeout_ratio: "timed out",
  scrape_seconds: "to scrape",
  disk_busy: "busy",
  disk_queue: "queued",
  psi_io: "stalled",
  pods_used: "of its room",
};

/** The usual value of one of the six, in the same words. */
export const basicUsual = (one) =>
  one.usual === null ? null : basic({ ...one, value: one.usual });

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });

/** The time of day here. */
export const clock = (iso) => CLOCK.format(new Date(iso));

/** Day and time here. */
export const day = (iso) => DAY.format(new Date(iso));
