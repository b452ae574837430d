/**
 * Tries one operation until it works, cannot work, or its deadline has passed. The SDK is told to
 * make one attempt only, because its own retries know neither our deadline nor what a damaged block
 * is. Pauses are "full jitter": a random part of a bound that doubles, so that many waiting requests
 * do not come back all at once (AWS Architecture Blog, "Exponential Backoff And Jitter").
 *
 * Limits: the deadline bounds everything; besides it MAX_CORRUPT damaged answers, UNPROVEN_ATTEMPTS
 * connections to an endpoint that never answered, and one renewal of credentials.
 */
import { setMaxListeners } from "node:events";
import { EbsError, interrupted, type Subject } from "./errors.js";
import type { Meter } from "./meter.js";
import { sentenceFor, type Trouble, troubleOf, type Verdict } from "./trouble.js";

/** Damaged answers (cut short, wrong checksum) of one operation before it is EIO. */
const MAX_CORRUPT = 8;
/** Attempts at an endpoint that has never answered: a wrong URL should not cost a minute. */
const UNPROVEN_ATTEMPTS = 3;

/** Most of the time that is left that a pause may take, so that there is another attempt. */
const LAST_PAUSES = 0.75;
/** With less time than this another attempt is not worth it, ms. */
const LEAST_LEFT_MS = 100;

/** Pauses in ms: the first bound, and the largest. */
const PAUSES: Record<Verdict, readonly [number, number]> = {
  fatal: [0, 0],
  soon: [50, 5_000],
  throttled: [100, 5_000],
  slow: [1_000, 15_000],
  corrupt: [20, 1_000],
  unreachable: [200, 5_000],
  credentials: [50, 1_000],
};

export interface RetryContext {
  /** Longest time for one operation with all its attempts, ms. */
  readonly ioTimeoutMs: number;
  readonly meter: Meter;
  /** True once the endpoint has answered anything. */
  proven: boolean;
  /** Takes new credentials from their source, for the next attempt. */
  renewCredentials(): Promise<void>;
  log(level: "debug" | "warn", message: string): void;
}

/**
 * @param attempt makes one request; must stop, and touch nothing more, once its signal is aborted.
 * @throws EbsError
 */
export async function withRetries<T>(
  context: RetryContext,
  subject: Subject,
  signal: AbortSignal | undefined,
  attempt: (signal: AbortSignal, deadline: number) => Promise<T>,
): Promise<T> {
  if (signal?.aborted) throw interrupted(subject);
  // One signal often ends many operations at a time, which Node would warn about.
  if (signal !== undefined) setMaxListeners(0, signal);
  const { meter } = context;
  meter.count(subject.operation, "calls");
  const deadline = performance.now() + context.ioTimeoutMs;
  const counts = { attempts: 0, corrupt: 0, renewals: 0 };
  for (;;) {
    counts.attempts += 1;
    meter.count(subject.operation, "requests");
    let trouble: Trouble;
    let cause: unknown;
    try {
      const result = await bounded(attempt, deadline, signal);
      context.proven = true;
      meter.count(subject.operation, "successes");
      return result;
    } catch (error) {
      if (signal?.aborted) throw interrupted(subject);
      cause = error;
      trouble = troubleOf(error, subject);
    }
    if (trouble.httpStatus !== undefined || trouble.verdict === "corrupt") context.proven = true;
    if (trouble.verdict === "throttled") meter.count(subject.operation, "throttles");
    if (trouble.verdict === "corrupt") counts.corrupt += 1;
    const left = deadline - performance.now();
    const again = mayTryAgain(trouble.verdict, counts, context);
    if (!again || left < LEAST_LEFT_MS) {
      meter.count(subject.operation, "failures");
      throw failed(subject, trouble, counts.attempts, cause);
    }
    if (trouble.verdict === "credentials") {
      counts.renewals += 1;
      await context.renewCredentials();
    }
    meter.count(subject.operation, "retries");
    context.log("debug", `${sentenceFor(subject, trouble, counts.attempts)} Trying again.`);
    await sleep(
      Math.min(pauseBefore(counts.attempts, trouble.verdict), left * LAST_PAUSES),
      signal,
    );
    if (signal?.aborted) throw interrupted(subject);
  }
}

interface Counts {
  readonly attempts: number;
  readonly corrupt: number;
  readonly renewals: number;
}

function mayTryAgain(verdict: Verdict, counts: Counts, context: RetryContext): boolean {
  switch (verdict) {
    case "fatal":
      return false;
    case "corrupt":
      return counts.corrupt < MAX_CORRUPT;
    case "unreachable":
      return context.proven || counts.attempts < UNPROVEN_ATTEMPTS;
    case "credentials":
      return counts.renewals < 1;
    default:
      return true;
  }
}

function pauseBefore(attempt: number, verdict: Verdict): number {
  const [first, largest] = PAUSES[verdict];
  return Math.random() * Math.min(largest, first * 2 ** Math.min(attempt - 1, 30));
}

/**
 * One attempt that ends at the deadline even where it hangs in something that takes no signal, such
 * as a credentials source. Its signal is aborted first, so what it was filling stays untouched.
 */
async function bounded<T>(
  attempt: (signal: AbortSignal, deadline: number) => Promise<T>,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  const stop = new AbortController();
  const forward = () => stop.abort();
  signal?.addEventListener("abort", forward, { once: true });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    stop.signal.addEventListener("abort", () => reject(new DeadlineError()), { once: true });
    timer = setTimeout(() => stop.abort(), Math.max(1, deadline - performance.now()));
  });
  try {
    return await Promise.race([attempt(stop.signal, deadline), late]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", forward);
  }
}

class DeadlineError extends Error {
  override readonly name = "TimeoutError";
  readonly code = "no answer within --io-timeout";
}

function failed(subject: Subject, trouble: Trouble, attempts: number, cause: unknown): EbsError {
  const { errno, exception, reason, requestId, httpStatus } = trouble;
  return new EbsError(
    {
      ...subject,
      errno,
      exception,
      attempts,
      message: sentenceFor(subject, trouble, attempts),
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
