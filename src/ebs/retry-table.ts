/**
 * What is done about an error that the service responded with: one table, read from the top, the first row
 * that fits decides. A row names exceptions, reasons, operations, statuses or words; what it leaves out fits
 * everything. test/ebs/retry-table.test.ts orders every row at the local endpoint.
 *
 * Sources: EBS direct APIs reference (exceptions and their reasons, SDK model of 2026); EBS user guide, "Error
 * retries for EBS direct APIs"; AWS SDKs' standard retry list (@smithy/core, retry constants); and what users
 * of the service report (shared/real-service.md).
 */
import type { ErrnoName } from "../common/failure.js";
import type { Subject } from "./errors.js";
import type { Operation } from "./meter.js";

/**
 * fatal: trying again cannot help. soon: 5xx, resets, time-outs. throttled: the service asks for fewer
 * requests. slow: a limit that frees up in seconds. corrupt: the response's bytes are wrong. unreachable: no
 * connection. credentials: renew them, then once more. not-yet: a snapshot that was started or completed a
 * moment ago is not known everywhere yet (retry.ts has the limits).
 */
export type RetryClass =
  | "fatal"
  | "soon"
  | "throttled"
  | "slow"
  | "corrupt"
  | "unreachable"
  | "credentials"
  | "not-yet";

/** An error of the service, as far as it is known. */
export interface ServiceError {
  readonly name: string;
  readonly reason: string | undefined;
  readonly status: number | undefined;
  /** Its message, one clean line. */
  readonly said: string;
}

interface Row {
  readonly names?: readonly string[];
  readonly reasons?: readonly string[];
  readonly operations?: readonly Operation[];
  /** From and to, inclusive. */
  readonly statuses?: readonly [number, number];
  readonly words?: RegExp;
  readonly retry: RetryClass;
  /** If it ends here. */
  readonly errno: ErrnoName;
  /** What happened and what to do, to follow "… failed: ". */
  readonly sentence: (error: ServiceError, subject: Subject) => string;
}

const PUT: readonly Operation[] = ["PutSnapshotBlock"];
const LISTS: readonly Operation[] = ["ListSnapshotBlocks", "ListChangedBlocks"];
const OF_A_PENDING_SNAPSHOT: readonly Operation[] = ["PutSnapshotBlock", "CompleteSnapshot"];

const THROTTLES = [
  "BandwidthLimitExceeded",
  "EC2ThrottledException",
  "LimitExceededException",
  "PriorRequestNotComplete",
  "ProvisionedThroughputExceededException",
  "RequestLimitExceeded",
  "RequestThrottleException",
  "RequestThrottled",
  "RequestThrottledException",
  "SlowDown",
  "Throttling",
  "ThrottlingException",
  "ThrottledException",
  "TooManyRequestsException",
  "TransactionInProgressException",
];
const TIMEOUTS = ["RequestTimeout", "RequestTimeoutException", "TimeoutError"];
const EXPIRED = ["ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"];
const REFUSED_SIGNATURE = [
  "AuthFailure",
  "IncompleteSignature",
  "IncompleteSignatureException",
  "InvalidAccessKeyId",
  "InvalidClientTokenId",
  "InvalidSignatureException",
  "MissingAuthenticationToken",
  "MissingAuthenticationTokenException",
  "RequestInTheFuture",
  "RequestTimeTooSkewed",
  "SignatureDoesNotMatch",
  "UnrecognizedClientException",
];

export const RETRY_TABLE: readonly Row[] = [
  {
    names: THROTTLES,
    retry: "throttled",
    errno: "ETIMEDOUT",
    sentence: () => "the service throttles requests; use a lower --concurrency or try later.",
  },
  {
    reasons: ["DEPENDENCY_REQUEST_THROTTLED"],
    retry: "throttled",
    errno: "ETIMEDOUT",
    sentence: () => "the service throttles requests for the KMS key; try later.",
  },
  {
    statuses: [429, 429],
    retry: "throttled",
    errno: "ETIMEDOUT",
    sentence: () => "the service throttles requests; use a lower --concurrency or try later.",
  },
  {
    names: EXPIRED,
    retry: "credentials",
    errno: "EACCES",
    sentence: () => "the AWS credentials have expired; renew them (for example aws sso login).",
  },
  {
    names: REFUSED_SIGNATURE,
    retry: "fatal",
    errno: "EACCES",
    sentence: ({ name }) =>
      `the AWS credentials were refused (${name}); check the access key, --profile and the clock.`,
  },
  {
    names: TIMEOUTS,
    retry: "soon",
    errno: "ETIMEDOUT",
    sentence: ({ name }) =>
      `the service waited too long for the request (${name}); try again later.`,
  },
  {
    statuses: [408, 408],
    retry: "soon",
    errno: "ETIMEDOUT",
    sentence: () => "the service waited too long for the request (408); try again later.",
  },
  {
    reasons: ["WRITE_REQUEST_TIMEOUT"],
    operations: PUT,
    retry: "soon",
    errno: "ETIMEDOUT",
    sentence: ({ said }) => `the service did not get the block in time (${said}); try again later.`,
  },
  {
    // Documented as retryable; comes with reason INVALID_PARAMETER_VALUE (nanovms/ops#1268).
    words: /failed to read block data/i,
    operations: PUT,
    retry: "soon",
    errno: "EIO",
    sentence: ({ said }) => `the service could not read the block (${said}); try again later.`,
  },
  {
    reasons: ["CONFLICTING_BLOCK_UPDATE"],
    operations: PUT,
    retry: "soon",
    errno: "EIO",
    sentence: () => "the service still works on an earlier put of the same block; try again later.",
  },
  {
    names: ["ConcurrentLimitExceededException"],
    retry: "slow",
    errno: "ETIMEDOUT",
    sentence: () => "too many snapshots are pending in this account; try later.",
  },
  {
    reasons: [
      "DEPENDENCY_ACCESS_DENIED",
      "DEPENDENCY_RESOURCE_NOT_FOUND",
      "GRANT_NOT_FOUND",
      "INVALID_CUSTOMER_KEY",
      "INVALID_DEPENDENCY_REQUEST",
      "INVALID_GRANT_TOKEN",
    ],
    retry: "fatal",
    errno: "EACCES",
    sentence: ({ said, reason }) =>
      `the snapshot's KMS key cannot be used (${said}, ${reason}); check that the key exists, is enabled and may be used with these credentials.`,
  },
  {
    statuses: [500, 599],
    retry: "soon",
    errno: "ETIMEDOUT",
    sentence: ({ status, name }) =>
      `the service responded with ${status} ${name}; try again later, or check --endpoint-url.`,
  },
  {
    names: ["InternalServerException"],
    retry: "soon",
    errno: "ETIMEDOUT",
    sentence: ({ status, name }) =>
      `the service responded with ${status} ${name}; try again later.`,
  },
  {
    names: ["AccessDeniedException", "AccessDenied"],
    retry: "fatal",
    errno: "EACCES",
    sentence: denied,
  },
  { statuses: [403, 403], retry: "fatal", errno: "EACCES", sentence: denied },
  {
    // Known everywhere only some time after StartSnapshot: up to a minute was seen (coldsnap#43, #56).
    names: ["ResourceNotFoundException"],
    operations: OF_A_PENDING_SNAPSHOT,
    retry: "not-yet",
    errno: "ESTALE",
    sentence: missing,
  },
  {
    // And some time after CompleteSnapshot (coldsnap#141).
    names: ["ResourceNotFoundException"],
    operations: LISTS,
    retry: "not-yet",
    errno: "ESTALE",
    sentence: missing,
  },
  { names: ["ResourceNotFoundException"], retry: "fatal", errno: "ESTALE", sentence: missing },
  { statuses: [404, 404], retry: "fatal", errno: "ESTALE", sentence: missing },
  {
    names: ["ServiceQuotaExceededException"],
    retry: "fatal",
    errno: "EIO",
    sentence: ({ said }) =>
      `a quota of the account is used up (${said}); raise it in Service Quotas.`,
  },
  {
    names: ["ConflictException"],
    retry: "fatal",
    errno: "EINVAL",
    sentence: ({ said }) => `the client token was used before with other parameters (${said}).`,
  },
  {
    statuses: [300, 399],
    retry: "fatal",
    errno: "EIO",
    sentence: ({ status }) =>
      `the endpoint responded with a redirect (${status}), which is not followed; check --endpoint-url and --region.`,
  },
  {
    operations: ["StartSnapshot"],
    statuses: [400, 499],
    retry: "fatal",
    errno: "EINVAL",
    sentence: refused,
  },
  { statuses: [400, 499], retry: "fatal", errno: "EIO", sentence: refused },
];

/** @returns the row for an error; undefined where the table says nothing, such as for an error of this machine. */
export function rowFor(error: ServiceError, { operation }: Subject): Row | undefined {
  const { name, reason, status, said } = error;
  return RETRY_TABLE.find(
    (row) =>
      (row.names?.includes(name) ?? true) &&
      (row.reasons === undefined || (reason !== undefined && row.reasons.includes(reason))) &&
      (row.operations?.includes(operation) ?? true) &&
      (row.statuses === undefined ||
        (status !== undefined && status >= row.statuses[0] && status <= row.statuses[1])) &&
      (row.words?.test(said) ?? true),
  );
}

function denied({ said }: ServiceError, { operation }: Subject): string {
  return `access was denied (${said}); allow the IAM action ebs:${operation} on the snapshot.`;
}

function missing({ said }: ServiceError): string {
  return `there is no such snapshot here (${said}); check the id, --region and the account.`;
}

function refused({ said, name, reason }: ServiceError): string {
  const why = reason === undefined ? name : `${name}, ${reason}`;
  const hint = /pending|not (?:yet )?(?:in )?(?:the )?(?:a )?complete|not completed/i.test(said)
    ? "; only a completed snapshot can be read, wait until it is"
    : "";
  return `the service refused it: ${said} (${why})${hint}.`;
}
