/**
 * Ends a request that stands still: looks a few times within the limit at how far it is, and measures from
 * the last time it had moved. A process that itself stood still (stopped, or on a machine that slept) does
 * not count the time that it has not seen.
 */

/** Looks within the limit, and the longest time between two of them, ms. */
const LOOKS = 8;
const MAX_PERIOD_MS = 250;
const MIN_PERIOD_MS = 10;
/** A look that is this late was kept from happening, ms. */
const STANDSTILL_MS = 1_000;

/**
 * @param position a value that changes whenever anything moves.
 * @returns a function that ends the watch.
 */
export function watchForStall(
  stallMs: number,
  position: () => unknown,
  moved: () => void,
  stalled: () => void,
): () => void {
  const period = Math.min(Math.max(stallMs / LOOKS, MIN_PERIOD_MS), MAX_PERIOD_MS);
  let last = position();
  let movedAt = performance.now();
  let lookedAt = movedAt;
  const timer = setInterval(() => {
    const now = performance.now();
    if (now - lookedAt > period + STANDSTILL_MS) movedAt += now - lookedAt;
    lookedAt = now;
    const here = position();
    if (here !== last) {
      last = here;
      movedAt = now;
      moved();
    } else if (now - movedAt >= stallMs) {
      clearInterval(timer);
      stalled();
    }
  }, period);
  return () => clearInterval(timer);
}
