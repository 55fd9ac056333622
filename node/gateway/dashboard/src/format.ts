const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const NONE = "–";

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : whole.format(value);
}

export function compact(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return Math.abs(value) < 100_000 ? (Math.abs(value) < 100 ? tenth : whole).format(value) : short.format(value);
}

export function rate(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : `${compact(value)}/s`;
}

export function millis(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  if (value >= 1000) return `${tenth.format(value / 1000)} s`;
  return `${value < 10 ? value.toFixed(1) : whole.format(value)} ms`;
}

export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString("en-GB");
}

export function moment(ms: number): string {
  const date = new Date(ms);
  const pad = (value: number, digits = 2) => String(value).padStart(digits, "0");
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${day} ${date.toLocaleTimeString("en-GB")}.${pad(date.getMilliseconds(), 3)}`;
}

export function since(ms: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

export function plural(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}
