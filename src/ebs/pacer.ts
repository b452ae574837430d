/**
 * Spreads requests over time: so many a second on average, with a short burst. Kept to the service's quota, a
 * client gets all of it; one that is throttled first and then waits gets less.
 */

/** What may come at once after a pause, in seconds of the rate. */
const BURST_SECONDS = 0.1;

export class Pacer {
  readonly #intervalMs: number;
  readonly #burstMs: number;
  readonly #now: () => number;
  /** When the next request is due. */
  #due = Number.NEGATIVE_INFINITY;

  /** @param perSecond requests. @param now a clock in ms, for tests. */
  constructor(perSecond: number, now: () => number = () => performance.now()) {
    this.#intervalMs = 1000 / perSecond;
    this.#burstMs = BURST_SECONDS * 1000;
    this.#now = now;
  }

  /** Takes a place. @returns how long to wait for it, ms. */
  take(): number {
    const now = this.#now();
    this.#due = Math.max(this.#due, now - this.#burstMs) + this.#intervalMs;
    return Math.max(0, this.#due - now);
  }
}
