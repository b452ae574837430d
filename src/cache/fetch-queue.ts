/**
 * Who may fetch now. A bounded number of fetches run at a time, as many as the line carries; those that
 * someone waits for go before readahead, which also leaves them a place, else first come first served. When the service throttles, fewer run: the limit
 * is cut by a third at a time and grows back by one for each limit's worth of fetches that went well
 * (additive increase, multiplicative decrease, as TCP does), so that it settles just under the quota.
 */

export interface FetchQueueOptions {
  /** Fetches at a time, at most. */
  readonly concurrency: number;
  /** Blocks that the line carries at a time now. */
  readonly line?: () => number;
  /** Throttled requests so far; a rise is the sign to slow down. */
  readonly throttles?: () => number;
  /** A clock in ms, for tests. */
  readonly now?: () => number;
}

const CUT = 0.7;
/** One burst of throttling is answered by one cut, ms. */
const CUT_INTERVAL_MS = 500;

/** A place in the queue. */
export class Ticket {
  /** Resolves true when it may start, false when it was cancelled. */
  readonly started: Promise<boolean>;
  state: "waiting" | "running" | "over" = "waiting";
  urgent: boolean;
  start: (mayRun: boolean) => void = () => {};

  constructor(urgent: boolean) {
    this.urgent = urgent;
    this.started = new Promise((resolve) => {
      this.start = resolve;
    });
  }
}

export class FetchQueue {
  readonly #most: number;
  readonly #throttles: () => number;
  readonly #line: () => number;
  readonly #now: () => number;
  /** Sets keep the order of insertion, and anything can be taken out of them at once. */
  readonly #urgent = new Set<Ticket>();
  readonly #ahead = new Set<Ticket>();
  #limit: number;
  #running = 0;
  #throttlesSeen: number;
  #lastCut = Number.NEGATIVE_INFINITY;

  constructor(options: FetchQueueOptions) {
    this.#most = Math.max(1, options.concurrency);
    this.#limit = this.#most;
    this.#throttles = options.throttles ?? (() => 0);
    this.#line = options.line ?? (() => Number.POSITIVE_INFINITY);
    this.#throttlesSeen = this.#throttles();
    this.#now = options.now ?? (() => performance.now());
  }

  /** Fetches that may run at a time now. */
  get limit(): number {
    return Math.max(1, Math.floor(Math.min(this.#limit, this.#line())));
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#urgent.size + this.#ahead.size;
  }

  /** Every ticket that started must be given back by `leave`. */
  enter(urgent: boolean): Ticket {
    const ticket = new Ticket(urgent);
    (urgent ? this.#urgent : this.#ahead).add(ticket);
    this.#startNext();
    return ticket;
  }

  /** Someone waits for it now. */
  promote(ticket: Ticket): void {
    if (ticket.urgent) return;
    ticket.urgent = true;
    if (this.#ahead.delete(ticket)) this.#urgent.add(ticket);
  }

  /** Takes out a ticket that has not started; false where it has. */
  cancel(ticket: Ticket): boolean {
    if (!this.#urgent.delete(ticket) && !this.#ahead.delete(ticket)) return false;
    ticket.state = "over";
    ticket.start(false);
    return true;
  }

  leave(ticket: Ticket, went: "well" | "badly"): void {
    if (ticket.state !== "running") return;
    ticket.state = "over";
    this.#running -= 1;
    this.#adapt(went);
    this.#startNext();
  }

  #adapt(went: "well" | "badly"): void {
    const throttles = this.#throttles();
    if (throttles === this.#throttlesSeen) {
      if (went === "well") this.#limit = Math.min(this.#most, this.#limit + 1 / this.#limit);
      return;
    }
    this.#throttlesSeen = throttles;
    const now = this.#now();
    if (now - this.#lastCut < CUT_INTERVAL_MS) return;
    this.#lastCut = now;
    this.#limit = Math.max(1, this.#limit * CUT);
  }

  #startNext(): void {
    for (;;) {
      const { limit } = this;
      const queue = this.#urgent.size > 0 ? this.#urgent : this.#ahead;
      // Over a slow line the last place is for a reader that comes to wait.
      const isSlow = limit > 1 && this.#line() < this.#most;
      const places = isSlow && queue === this.#ahead ? limit - 1 : limit;
      if (this.#running >= places) return;
      const next = queue.values().next().value;
      if (next === undefined) return;
      queue.delete(next);
      this.#running += 1;
      next.state = "running";
      next.start(true);
    }
  }
}
