/**
 * How wrong this machine's clock is. Requests are signed with a time, which a server compares with its own; the
 * `Date` header of its responses tells what that is. One such record belongs to a place and outlives clients
 * and credentials.
 */

export interface Clock {
  /** What to add to this machine's clock, ms. */
  offsetMs: number;
}

/** Requests signed with a clock as wrong as this are refused, ms. Source: @aws-sdk/core, isClockSkewed. */
const MAX_CLOCK_ERROR_MS = 300_000;

/** @param date a response's Date header. @returns what to add to this machine's clock, ms; NaN if it does not say. */
export function clockOffset(date: string | undefined): number {
  return Date.parse(date ?? "") - Date.now();
}

/** The offset is wrong by as much as makes servers refuse. */
export function isWrong(offsetMs: number, date: string | undefined): boolean {
  return Math.abs(clockOffset(date) - offsetMs) >= MAX_CLOCK_ERROR_MS;
}
