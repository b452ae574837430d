/**
 * Tries one operation until it works, cannot work, or its time is up. The SDK is told to make one try
 * only, because its own retries know neither our deadline nor what a damaged block is. Pauses are "full
 * jitter": a random part of a bound that doubles, so that many waiting requests do not come back all at
 * once (AWS Architecture Blog, "Exponential Backoff And Jitter").
 *
 * An operation's time is --io-timeout, counted from when more of it had moved than ever before: a slow
 * line is no failure. Limits: MAX_STRETCH times --io-timeout in all; MAX_CORRUPT damaged responses; UNPROVEN_TRIES
 * connections to an endpoint that never responded; one renewal of credentials; NOT_YET_MS after a snapshot's
 * start, or a few quick tries at a list, for a snapshot that is not known yet.
 */
import { setMaxListeners } from "node:events";
import type { Budget } from "./budget.js";
import { EbsError, interrupted, type Subject } from "./errors.js";
import type { Meter } from "./meter.js";
import type { RetryClass } from "./retry-table.js";
import { sentenceFor, type Trouble, troubleOf } from "./trouble.js";

/** How many times --io-timeout an operation may take while its bytes move. */
const MAX_STRETCH = 5;
/** Damaged responses (cut short, wrong checksum) of one operation before it is EIO. */
const MAX_CORRUPT = 8;
/** Tries at an endpoint that has never responded: a wrong URL should not cost a minute. */
const UNPROVEN_TRIES = 3;
/**
 * How long after its start a snapshot may be unknown to puts and to its completion, beyond --io-timeout, ms.
 * Source: awslabs/coldsnap#43, #56 (up to a minute was seen).
 */
export const NOT_YET_MS = 120_000;
/** Tries at a list of a snapshot that is not known; a wrong id should not cost a minute. */
const UNKNOWN_LIST_TRIES = 5;

/** Most of the time that is left that a pause may take, so that there is another attempt. */
const LAST_PAUSES = 0.75;
/** With less time than this another attempt is not worth it, ms. */
const LEAST_LEFT_MS = 100;

/** Pauses in ms: the first bound, and the largest. */
const PAUSES: Record<RetryClass, readonly [number, number]> = {
  fatal: [0, 0],
  soon: [50, 5_000],
  throttled: [100, 5_000],
  slow: [1_000, 15_000],
  corrupt: [20, 1_000],
  unreachable: [200, 5_000],
  credentials: [50, 1_000],
  "not-yet": [250, 5_000],
};

export interface RetryContext {
  /** Longest time for one operation with all its tries since a byte of it moved, ms. */
  readonly ioTimeoutMs: number;
  readonly meter: Meter;
  readonly budget: Budget;
  /** True once the endpoint has responded with anything. */
  proven: boolean;
  /** When a snapshot was started, by performance.now(); undefined where that is not known or long ago. */
  startedAt(snapshotId: string): number | undefined;
  /** Whose response is waited for now: a host, or the source of credentials. */
  waitsFor(): string;
  /** Takes new credentials from their source, for the next try. */
  renewCredentials(): Promise<void>;
  log(level: "debug" | "warn", message: string): void;
}

/**
 * @param oneTry makes one request; must stop, and touch nothing more, once its signal is aborted; calls
 * `progress` when bytes of a body have moved.
 * @throws EbsError
 */
export async function withRetries<T>(
  context: RetryContext,
  subject: Subject,
  signal: AbortSignal | undefined,
  oneTry: (signal: AbortSignal, progress: (bodyBytes: number) => void) => Promise<T>,
): Promise<T> {
  if (signal?.aborted) throw interrupted(subject);
  // One signal often ends many operations at a time, which Node would warn about.
  if (signal !== undefined) setMaxListeners(0, signal);
  const { meter } = context;
  meter.count(subject.operation, "calls");
  const deadline = new Deadline(context.ioTimeoutMs);
  const counts = { tries: 0, corrupt: 0, renewals: 0, unknown: 0 };
  let before: Trouble | undefined;
  for (;;) {
    counts.tries += 1;
    let trouble: Trouble;
    let cause: unknown;
    try {
      const result = await context.budget.spend(subject.operation, signal, () => {
        meter.count(subject.operation, "requests");
        return bounded(oneTry, deadline, signal);
      });
      context.proven = true;
      meter.count(subject.operation, "successes");
      return result;
    } catch (error) {
      if (signal?.aborted) throw interrupted(subject);
      cause = error;
      trouble = error instanceof TimeIsUp ? timeIsUp(context) : troubleOf(error, subject);
    }
    if (trouble.httpStatus !== undefined || trouble.verdict === "corrupt") context.proven = true;
    if (trouble.verdict === "throttled") meter.count(subject.operation, "throttles");
    if (trouble.verdict === "corrupt") counts.corrupt += 1;
    if (trouble.verdict === "not-yet") {
      counts.unknown += 1;
      const startedAt = context.startedAt(subject.snapshotId ?? "");
      if (startedAt !== undefined) deadline.extendTo(startedAt + context.ioTimeoutMs + NOT_YET_MS);
    }
    const again = mayTryAgain(trouble.verdict, counts, context, subject);
    if (!again || deadline.leftMs < LEAST_LEFT_MS) {
      meter.count(subject.operation, "failures");
      throw failed(subject, withEarlier(trouble, before), counts.tries, cause);
    }
    if (trouble.verdict === "credentials") {
      counts.renewals += 1;
      await context.renewCredentials();
    }
    meter.count(subject.operation, "retries");
    context.log("debug", `${sentenceFor(subject, trouble, counts.tries)} Trying again.`);
    await sleep(
      Math.min(pauseBefore(counts.tries, trouble.verdict), deadline.leftMs * LAST_PAUSES),
      signal,
    );
    if (signal?.aborted) throw interrupted(subject);
    // What the service said is worth more than how a connection ended.
    if (trouble.httpStatus !== undefined || before?.httpStatus === undefined) before = trouble;
  }
}

/** When an operation's time is up. */
class Deadline {
  readonly #ioTimeoutMs: number;
  readonly #last: number;
  #at: number;
  /** Most that a try has moved. */
  #bodyBytes = 0;

  constructor(ioTimeoutMs: number) {
    const now = performance.now();
    this.#ioTimeoutMs = ioTimeoutMs;
    this.#at = now + ioTimeoutMs;
    this.#last = now + ioTimeoutMs * MAX_STRETCH;
  }

  get leftMs(): number {
    return this.#at - performance.now();
  }

  /** @param bodyBytes of this try. Only more than any try before has moved is progress of the operation. */
  moved(bodyBytes: number): void {
    if (bodyBytes <= this.#bodyBytes) return;
    this.#bodyBytes = bodyBytes;
    this.extendTo(Math.min(this.#last, performance.now() + this.#ioTimeoutMs));
  }

  extendTo(at: number): void {
    this.#at = Math.max(this.#at, at);
  }
}

interface Counts {
  readonly tries: number;
  readonly corrupt: number;
  readonly renewals: number;
  readonly unknown: number;
}

function mayTryAgain(
  verdict: RetryClass,
  counts: Counts,
  context: RetryContext,
  { operation, snapshotId }: Subject,
): boolean {
  switch (verdict) {
    case "fatal":
      return false;
    case "corrupt":
      return counts.corrupt < MAX_CORRUPT;
    case "unreachable":
      return context.proven || counts.tries < UNPROVEN_TRIES;
    case "credentials":
      return counts.renewals < 1;
    case "not-yet":
      if (operation.startsWith("List")) return counts.unknown < UNKNOWN_LIST_TRIES;
      return context.startedAt(snapshotId ?? "") !== undefined;
    default:
      return true;
  }
}

function pauseBefore(tries: number, verdict: RetryClass): number {
  const [first, largest] = PAUSES[verdict];
  return Math.random() * Math.min(largest, first * 2 ** Math.min(tries - 1, 30));
}

/**
 * One try that ends at the deadline even where it hangs in something that takes no signal, such as a
 * source of credentials. Its signal is aborted first, so what it was filling stays untouched.
 */
async function bounded<T>(
  oneTry: (signal: AbortSignal, progress: (bodyBytes: number) => void) => Promise<T>,
  deadline: Deadline,
  signal: AbortSignal | undefined,
): Promise<T> {
  const stop = new AbortController();
  const forward = () => stop.abort();
  signal?.addEventListener("abort", forward, { once: true });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    stop.signal.addEventListener("abort", () => reject(new TimeIsUp()), { once: true });
    const look = () => {
      const left = deadline.leftMs;
      if (left <= 0) stop.abort();
      else timer = setTimeout(look, Math.max(1, left));
    };
    look();
  });
  try {
    return await Promise.race([
      oneTry(stop.signal, (bodyBytes) => deadline.moved(bodyBytes)),
      late,
    ]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", forward);
  }
}

class TimeIsUp extends Error {}

function timeIsUp({ ioTimeoutMs, waitsFor }: RetryContext): Trouble {
  const limit = `no response from ${waitsFor()} within --io-timeout (${ioTimeoutMs / 1000} s)`;
  const sentence = `${limit}; check the network and --endpoint-url.`;
  return { verdict: "soon", errno: "ETIMEDOUT", exception: "TimeoutError", sentence };
}

/** If the last try had no response, what the service said to an earlier one explains more. */
function withEarlier(last: Trouble, earlier: Trouble | undefined): Trouble {
  if (last.httpStatus !== undefined || earlier?.httpStatus === undefined) return last;
  const sentence = `${last.sentence.replace(/\.$/, "")}; to an earlier try, ${earlier.sentence}`;
  return { ...last, sentence };
}

function failed(subject: Subject, trouble: Trouble, tries: number, cause: unknown): EbsError {
  const { errno, exception, reason, requestId, httpStatus } = trouble;
  return new EbsError(
    {
      ...subject,
      errno,
      exception,
      attempts: tries,
      message: sentenceFor(subject, trouble, tries),
      ...(reason !== undefined && { reason }),
      ...(requestId !== undefined && { requestId }),
      ...(httpStatus !== undefined && { httpStatus }),
    },
    { cause },
  );
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end, { once: true });
  });
}
