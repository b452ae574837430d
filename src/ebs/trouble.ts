/**
 * What went wrong with one attempt, and what to do about it. Everything an attempt can throw (the
 * SDK's exceptions, Node's socket errors, our own findings about an answer) is sorted here, once,
 * into a Trouble: whether to try again and how soon, and the errno and sentence if it ends here.
 */
import { CredentialsError } from "../aws/credentials.js";
import { type ErrnoName, Failure } from "../common/failure.js";
import { HttpError, type HttpErrorKind, messageWithHost } from "../http/http-error.js";
import { credentialsTrouble } from "./configuration-errors.js";
import { about, type Subject } from "./errors.js";
import { type RetryClass, rowFor } from "./retry-table.js";

export interface Trouble {
  readonly verdict: RetryClass;
  /** If this attempt is the last. */
  readonly errno: ErrnoName;
  /** What happened and what to do, to follow "… failed: ". */
  readonly sentence: string;
  readonly exception: string;
  readonly reason?: string;
  readonly requestId?: string;
  readonly httpStatus?: number;
}

/** Plain data, so that it can go to another thread. */
export interface AnswerErrorDetails {
  readonly verdict: RetryClass;
  readonly exception: string;
  readonly message: string;
}

/** Thrown by our own checks of a response; already sorted. */
export class AnswerError extends Error {
  readonly verdict: RetryClass;
  readonly exception: string;

  constructor(verdict: RetryClass, exception: string, message: string) {
    super(message);
    this.verdict = verdict;
    this.exception = exception;
  }

  details(): AnswerErrorDetails {
    return { verdict: this.verdict, exception: this.exception, message: this.message };
  }
}

/** What to do about a request without a response, and the errno if it ends there. */
const HTTP_ERRORS: Record<HttpErrorKind, readonly [RetryClass, ErrnoName, string]> = {
  "invalid-request": ["fatal", "EINVAL", "check --endpoint-url and the credentials"],
  name: ["unreachable", "ETIMEDOUT", "check the network, --region and --endpoint-url"],
  unreachable: ["unreachable", "ETIMEDOUT", "check the network, --region and --endpoint-url"],
  proxy: ["unreachable", "ETIMEDOUT", "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"],
  certificate: ["fatal", "EIO", "check --endpoint-url, AWS_CA_BUNDLE and NODE_EXTRA_CA_CERTS"],
  tls: ["unreachable", "EIO", "check --endpoint-url"],
  protocol: ["unreachable", "EIO", "check --endpoint-url"],
  stalled: ["soon", "ETIMEDOUT", "check the network"],
  lost: ["soon", "ETIMEDOUT", "check the network"],
  "body-cut-short": ["soon", "EIO", "check the network"],
  "body-too-short": ["corrupt", "EIO", "check --endpoint-url"],
  "body-too-long": ["corrupt", "EIO", "check --endpoint-url"],
  "head-too-long": ["corrupt", "EIO", "check --endpoint-url"],
  aborted: ["soon", "ETIMEDOUT", "try again"],
  closed: ["fatal", "EIO", "try again"],
};

/** As far as an unknown thrown value is looked into; all optional, none trusted. */
interface Thrown {
  readonly name?: unknown;
  readonly message?: unknown;
  readonly code?: unknown;
  readonly Reason?: unknown;
  readonly Message?: unknown;
  readonly $metadata?: {
    readonly httpStatusCode?: number;
    readonly requestId?: string;
    readonly clockSkewCorrected?: boolean;
  };
}

/** Sorts what one attempt threw. */
export function troubleOf(error: unknown, subject: Subject): Trouble {
  if (error instanceof AnswerError) {
    return {
      verdict: error.verdict,
      errno: "EIO",
      sentence: error.message,
      exception: error.exception,
    };
  }
  if (error instanceof HttpError) {
    const [verdict, errno, advice] = HTTP_ERRORS[error.kind];
    const sentence = `${messageWithHost(error)}; ${advice}.`;
    return { verdict, errno, sentence, exception: error.kind };
  }
  if (error instanceof Failure) {
    const { errno, message } = error;
    return { verdict: "fatal", errno, sentence: message, exception: "Failure" };
  }
  if (error instanceof CredentialsError) {
    return credentialsTrouble(error, troubleOf(error.cause, subject));
  }
  const thrown = (typeof error === "object" && error !== null ? error : {}) as Thrown;
  const name = text(thrown.name) ?? "Error";
  const code = text(thrown.code) ?? causeCode(error);
  const status = thrown.$metadata?.httpStatusCode;
  const base = {
    exception: name === "Error" && code !== undefined ? code : name,
    ...(text(thrown.Reason) !== undefined && { reason: text(thrown.Reason) as string }),
    ...(thrown.$metadata?.requestId !== undefined && { requestId: thrown.$metadata.requestId }),
    ...(status !== undefined && { httpStatus: status }),
  };
  return { ...base, ...judge(thrown, name, code, status, subject) };
}

type Judgement = Pick<Trouble, "verdict" | "errno" | "sentence">;

function judge(
  thrown: Thrown,
  name: string,
  code: string | undefined,
  status: number | undefined,
  subject: Subject,
): Judgement {
  const said = sayable(text(thrown.Message) ?? text(thrown.message));
  const reason = text(thrown.Reason);
  if (thrown.$metadata?.clockSkewCorrected) {
    const sentence = "this machine's clock is wrong; set it (for example with chrony or ntpd).";
    return { verdict: "credentials", errno: "EACCES", sentence };
  }
  const row = rowFor({ name, reason, status, said }, subject);
  if (row !== undefined) {
    const { retry, errno, sentence } = row;
    return { verdict: retry, errno, sentence: sentence({ name, reason, status, said }, subject) };
  }
  if (code !== undefined || name === "TimeoutError") {
    const sentence = `the connection failed (${code ?? name}).`;
    return { verdict: "soon", errno: "ETIMEDOUT", sentence };
  }
  return { verdict: "fatal", errno: "EIO", sentence: `${said}.` };
}

/** The cause's code: AggregateError and fetch-like errors carry it one level down. */
function causeCode(error: unknown): string | undefined {
  if (error instanceof AggregateError) {
    for (const inner of error.errors) {
      const code = text((inner as Thrown)?.code);
      if (code !== undefined) return code;
    }
  }
  return error instanceof Error ? text((error.cause as Thrown | undefined)?.code) : undefined;
}

/** A service's or library's message as part of our sentence: one line, no end mark, not endless. */
function sayable(message: string | undefined): string {
  const line = (message ?? "no reason given").split("\n")[0] as string;
  return (
    line
      .trim()
      .replace(/[.;]+$/, "")
      .slice(0, 300) || "no reason given"
  );
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** The whole sentence for a person. */
export function sentenceFor(subject: Subject, trouble: Trouble, attempts: number): string {
  const tries = attempts > 1 ? ` after ${attempts} attempts` : "";
  const id = trouble.requestId === undefined ? "" : ` [request ${trouble.requestId}]`;
  return `${about(subject)} failed${tries}: ${trouble.sentence}${id}`;
}
