/**
 * Drives libcurl's transfers: who calls `curl_multi_perform`, and when.
 *
 * In a thread of its own (a worker that only sends requests) the loop waits inside `curl_multi_poll`, for at
 * most POLL_MS, and is woken by `curl_multi_wakeup` from the thread that posts a message to it. It goes back
 * to Node's event loop when a transfer has ended, when it was woken, and when the wait is over; so messages,
 * promises and timers work as ever. Nothing else touches the multi handle while it waits, because this
 * thread stands still.
 *
 * In a thread that does other work too (the main thread, for a few requests) nothing may wait: the loop looks
 * again on a timer, at once while bytes move and every MIN_PAUSE_MS to MAX_PAUSE_MS while none does.
 */
import type { CurlLibrary, Pointer } from "./library.js";
import { messagesOf, setWaiting, type WakeHandle } from "./wake.js";

/** Longest wait inside libcurl, ms: also how late a timer of this thread can be. */
const POLL_MS = 250;
/** The same while something of this thread is pending outside libcurl (a name's look-up), ms. */
const SHORT_POLL_MS = 5;
/** Pauses between two looks in a thread that does other work too, ms, and the looks until the longer one. */
const MIN_PAUSE_MS = 1;
const MAX_PAUSE_MS = 5;
const LOOKS_BEFORE_MAX_PAUSE = 500;

export interface Loop {
  /** Transfers under way. */
  readonly active: number;
  /** Something of this thread, outside libcurl, is being waited for. */
  readonly isWaitingOutside: boolean;
  /** Takes finished transfers away. @returns how many there were. */
  harvest(): number;
  /** Called after each look, for what depends on time. */
  tick(): void;
}

export class MultiLoop {
  readonly #curl: CurlLibrary;
  readonly #multi: Pointer;
  readonly #loop: Loop;
  /** undefined where the thread does other work too. */
  readonly #wake: WakeHandle | undefined;
  readonly #count = new Int32Array(1);
  #isRunning = false;
  #quietLooks = 0;

  constructor(curl: CurlLibrary, multi: Pointer, loop: Loop, wake?: WakeHandle) {
    this.#curl = curl;
    this.#multi = multi;
    this.#loop = loop;
    this.#wake = wake;
  }

  /** Goes on until nothing is under way; to be called whenever a transfer was added. */
  run(): void {
    this.#quietLooks = 0;
    if (this.#isRunning) return;
    this.#isRunning = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    if (this.#wake === undefined) this.#look();
    else this.#wait(this.#wake);
    this.#loop.tick();
    if (this.#loop.active === 0) {
      this.#isRunning = false;
      return;
    }
    if (this.#wake !== undefined || this.#quietLooks === 0) setImmediate(this.#turn);
    else
      setTimeout(
        this.#turn,
        this.#quietLooks < LOOKS_BEFORE_MAX_PAUSE ? MIN_PAUSE_MS : MAX_PAUSE_MS,
      );
  };

  /** One look, without waiting. */
  #look(): void {
    this.#curl.perform(this.#multi, this.#count);
    const finished = this.#loop.harvest();
    this.#curl.poll(this.#multi, 0, this.#count);
    this.#quietLooks = finished > 0 || this.#count[0] !== 0 ? 0 : this.#quietLooks + 1;
  }

  /** Waits until there is something to do outside libcurl. */
  #wait(wake: WakeHandle): void {
    const seen = messagesOf(wake);
    const ms = this.#loop.isWaitingOutside ? SHORT_POLL_MS : POLL_MS;
    const end = performance.now() + ms;
    for (;;) {
      this.#curl.perform(this.#multi, this.#count);
      if (this.#loop.harvest() > 0 || this.#loop.active === 0) return;
      const left = end - performance.now();
      if (left <= 0) return;
      setWaiting(wake, true);
      if (messagesOf(wake) === seen) this.#curl.poll(this.#multi, Math.ceil(left), this.#count);
      setWaiting(wake, false);
      if (messagesOf(wake) !== seen) return;
    }
  }
}
