/**
 * How many blocks are under way at a time in one direction: as many as the line carries. Over a fast line that is
 * the limit that the user gave. Over a slow one many at a time only make each of them late: sixty-four blocks
 * at 4 Mbit/s take a minute each, and meet every time-out together.
 *
 * By Little's law, blocks under way = blocks a second × time of each. So the time of each tells whether fewer
 * would do: the gate starts with few, admits more as long as a block takes no longer than BOUND_MS (or twice the
 * shortest time seen, where the service itself takes long), and fewer when it does. Blocks wait here
 * without a deadline; theirs begins when they are admitted.
 */

/** A block may take this long, ms, before fewer are admitted. */
const BOUND_MS = 4_000;
/** Or this many times the shortest that one has taken. */
const BOUND_FACTOR = 2;
/** More are admitted only while a block takes no longer than this many times the shortest, or BOUND_MS. */
const GROW_FACTOR = 1.25;
/** Admitted at first. */
const FIRST = 4;
/** Admitted at least: one is sent while another is asked for, and a third is late. */
const LEAST = 3;
/** What is left of the limit after a cut. */
const CUT = 0.75;
/** Blocks faster than this part of BOUND_MS show that the line carries far more. */
const FAST = 1 / 8;

interface Waiter {
  readonly admit: () => void;
}

export class LineGate {
  readonly #most: number;
  readonly #now: () => number;
  readonly #waiting = new Set<Waiter>();
  #limit: number;
  #underWay = 0;
  #shortestMs = Number.POSITIVE_INFINITY;
  /** No block was late so far. */
  #isFirst = true;
  #cutAt = Number.NEGATIVE_INFINITY;

  /** @param most admitted at a time, at least 1. @param now a clock in ms, for tests. */
  constructor(most: number, now: () => number = () => performance.now()) {
    this.#most = most;
    this.#now = now;
    this.#limit = Math.min(FIRST, most);
  }

  /** Blocks admitted at a time now. */
  get limit(): number {
    return Math.floor(this.#limit);
  }

  /** @returns when it was admitted, for `leave`. @throws the signal's reason where it is aborted meanwhile */
  async enter(signal?: AbortSignal): Promise<number> {
    if (this.#underWay < this.limit && this.#waiting.size === 0) this.#underWay += 1;
    else await this.#wait(signal);
    return this.#now();
  }

  /** @param enteredAt what `enter` returned. @param succeeded false tells nothing about the line. */
  leave(enteredAt: number, succeeded: boolean): void {
    if (succeeded) this.#adapt(this.#now() - enteredAt);
    this.#underWay -= 1;
    for (const { admit } of this.#waiting) {
      if (this.#underWay >= this.limit) return;
      admit();
    }
  }

  #adapt(ms: number): void {
    this.#shortestMs = Math.min(this.#shortestMs, ms);
    const bound = Math.max(BOUND_MS, BOUND_FACTOR * this.#shortestMs);
    const now = this.#now();
    if (ms > bound) {
      this.#isFirst = false;
      // What is under way was admitted before the cut: one cut for all of it.
      if (now - this.#cutAt < ms) return;
      this.#cutAt = now;
      this.#limit = Math.max(Math.min(LEAST, this.#most), this.#limit * CUT);
    } else if (
      // One less is full, too: readahead leaves a place to readers (cache/fetch-queue.ts).
      this.#underWay >= this.limit - 1 &&
      ms <= Math.max(BOUND_MS, GROW_FACTOR * this.#shortestMs)
    ) {
      const more = this.#isFirst ? (ms < BOUND_MS * FAST ? 2 : 1) : 1 / this.#limit;
      this.#limit = Math.min(this.#most, this.#limit + more);
    }
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        this.#waiting.delete(waiter);
        signal?.removeEventListener("abort", abort);
      };
      const abort = () => {
        end();
        reject(signal?.reason);
      };
      const waiter: Waiter = {
        admit: () => {
          end();
          this.#underWay += 1;
          resolve();
        },
      };
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiting.add(waiter);
    });
  }
}
