/**
 * Every fault that can be ordered, in one table: its name (the `action` of a rule), what it does (in
 * docs/endpoint.md too, which a test compares), which operations it can strike, and which words mean
 * something to it. A fault that responds with an exception is complete with its row; faults.ts turns
 * the others into what http-handler.ts and the operations do. Sources: the guide's "Error retries for
 * EBS direct APIs", the service's model, the AWS SDKs' list of errors that are retried, and the public
 * reports named at the rows.
 */
import { OPERATIONS, type Operation } from "./call.js";

/** A response of the service that is no success. */
export interface FaultError {
  readonly name: string;
  /** HTTP; the exception's own (service-error.ts) unless given. */
  readonly status?: number;
  readonly reason?: string;
  /** %s is the snapshot's id. */
  readonly message: string;
}

export interface FaultKind {
  /** A line for people. */
  readonly does: string;
  /** What it can strike; every operation unless given. */
  readonly strikes?: readonly Operation[];
  /** Words of its own, besides those that choose calls. `NAME=VALUE` sets the first, or `count`. */
  readonly words?: readonly string[];
  /** The exception that calls get, if any; the words name, status, reason and message change it. */
  readonly error?: FaultError;
  /** Changes a call and lets it go on, so that further faults strike it as well. */
  readonly isAddition?: true;
}

const LISTS: readonly Operation[] = ["ListSnapshotBlocks", "ListChangedBlocks"];
/** Operations that use a snapshot's KMS key. Source: guide, "Permissions to use KMS keys". */
const WITH_KEY: readonly Operation[] = ["StartSnapshot", "PutSnapshotBlock", "GetSnapshotBlock"];

/** An exception of the SDKs' standard retry list that asks for fewer requests. */
function throttle(name: string): FaultKind {
  const message = "The request rate is above the limit.";
  return { does: "asks for fewer requests, as some AWS services do", error: { name, message } };
}

const TABLE = {
  latency: {
    does: "waits `ms`, and up to `jitterMs` more, before the work",
    words: ["ms", "jitterMs"],
    isAddition: true,
  },
  rate: {
    does: "lets `perSecond` calls through, `burst` at once, with `perSnapshot` of each snapshot",
    words: ["perSecond", "burst", "perSnapshot"],
    error: {
      name: "RequestThrottledException",
      reason: "ACCOUNT_THROTTLED",
      message: "The request rate is above the limit.",
    },
  },
  error: {
    does: "responds with the exception `name`, its `status`, `reason` and `message`",
    words: ["name"],
    error: { name: "InternalServerException", message: "A fault rule ordered this error." },
  },
  reset: { does: "resets the connection; no work is done" },
  hang: { does: "never responds; no work is done" },
  lost: { does: "does the work, then drops the connection instead of responding" },
  cut: {
    does: "sends `bytes` of the body (half of it) and drops the connection; with `clean`, calls that all",
    strikes: OPERATIONS.filter((operation) => operation !== "PutSnapshotBlock"),
    words: ["bytes", "clean"],
  },
  corrupt: {
    does: "changes a byte of a block that is got, under an unchanged checksum",
    strikes: ["GetSnapshotBlock"],
  },
  checksum: {
    does: "gets or puts rightly, but responds with a wrong checksum",
    strikes: ["GetSnapshotBlock", "PutSnapshotBlock"],
  },
  "expired-token": {
    does: "treats block and page tokens as expired",
    strikes: ["GetSnapshotBlock", ...LISTS],
  },
  "short-page": {
    does: "at most `entries` (1) in a list page",
    strikes: LISTS,
    words: ["entries"],
    isAddition: true,
  },
  "empty-page": {
    does: "no entry in a list page, with a token to go on",
    strikes: LISTS,
    isAddition: true,
  },
  "empty-pages": {
    does: "no entry in a list page, and the same token again, without end",
    strikes: LISTS,
    isAddition: true,
  },
  "null-list": {
    does: "`null` in place of a page's list, with nothing to go on",
    strikes: LISTS,
    isAddition: true,
  },
  // awslabs/coldsnap#43 and #56: 56 seconds and 7 tries were seen.
  "eventual-start": {
    does: "the first `requests` (3) of each pending snapshot, or those within `ms` of its start, do not find it",
    strikes: ["PutSnapshotBlock", "CompleteSnapshot"],
    words: ["requests", "ms"],
    error: {
      name: "ResourceNotFoundException",
      reason: "SNAPSHOT_NOT_FOUND",
      message: "The snapshot '%s' does not exist.",
    },
  },
  // awslabs/coldsnap#141.
  "eventual-complete": {
    does: "the first `requests` (3) of each completed snapshot, or those within `ms` of its completion, do not find it",
    strikes: LISTS,
    words: ["requests", "ms"],
    error: {
      name: "ResourceNotFoundException",
      reason: "SNAPSHOT_NOT_FOUND",
      message: "The snapshot '%s' does not exist.",
    },
  },
  "completed-start": {
    does: "says that the snapshot, which is pending, is `completed`",
    strikes: ["StartSnapshot"],
    isAddition: true,
  },
  "unencrypted-start": {
    does: "names no KmsKeyArn, whatever encryption was asked for",
    strikes: ["StartSnapshot"],
    isAddition: true,
  },
  // nanovms/ops#1268: dozens of blocks over a slow line, each cured by a retry.
  unreadable: {
    does: "the block did not arrive whole, which a retry cures",
    strikes: ["PutSnapshotBlock"],
    error: {
      name: "ValidationException",
      reason: "INVALID_PARAMETER_VALUE",
      message: "Failed to read block data",
    },
  },
  "write-timeout": {
    does: "the block took too long",
    strikes: ["PutSnapshotBlock"],
    error: {
      name: "ValidationException",
      reason: "WRITE_REQUEST_TIMEOUT",
      message: "The write request timed out.",
    },
  },
  "conflicting-update": {
    does: "another put of the block is under way",
    strikes: ["PutSnapshotBlock"],
    error: {
      name: "ValidationException",
      reason: "CONFLICTING_BLOCK_UPDATE",
      message: "Another update of the block is in progress.",
    },
  },
  "request-timeout": {
    does: "the request was not read in time; `status` 400 is seen as well",
    words: ["status"],
    error: { name: "RequestTimeoutException", message: "Reading the request timed out." },
  },
  "throttle-snapshot": {
    does: "the snapshot's rate is above the limit",
    error: {
      name: "RequestThrottledException",
      reason: "RESOURCE_LEVEL_THROTTLE",
      message: "The request rate is above the snapshot's limit.",
    },
  },
  "throttle-account": {
    does: "the account's rate is above the limit",
    error: {
      name: "ThrottlingException",
      message: "The request rate is above the account's limit.",
    },
  },
  "throttle-old-name": {
    does: "the snapshot's rate is above the limit, in the guide's spelling",
    error: {
      name: "RequestThrottleException",
      message: "The request rate is above the snapshot's limit.",
    },
  },
  "bandwidth-limit-exceeded": throttle("BandwidthLimitExceeded"),
  "ec2-throttled": throttle("EC2ThrottledException"),
  "limit-exceeded": throttle("LimitExceededException"),
  "prior-request-not-complete": throttle("PriorRequestNotComplete"),
  "provisioned-throughput-exceeded": throttle("ProvisionedThroughputExceededException"),
  "slow-down": throttle("SlowDown"),
  "transaction-in-progress": throttle("TransactionInProgressException"),
  "too-many-pending": {
    does: "the account has 100 pending snapshots already",
    strikes: ["StartSnapshot"],
    error: {
      name: "ConcurrentLimitExceededException",
      message: "The limit of pending snapshots is reached.",
    },
  },
  "quota-exceeded": {
    does: "a quota of another service that is needed, such as KMS, is used up",
    error: {
      name: "ServiceQuotaExceededException",
      reason: "DEPENDENCY_SERVICE_QUOTA_EXCEEDED",
      message: "A service quota of the account is exceeded.",
    },
  },
  "kms-throttled": {
    does: "KMS asks for fewer requests",
    strikes: WITH_KEY,
    error: {
      name: "RequestThrottledException",
      reason: "DEPENDENCY_REQUEST_THROTTLED",
      message: "Requests to KMS are throttled.",
    },
  },
  "kms-key-disabled": {
    does: "the KMS key is disabled",
    strikes: WITH_KEY,
    error: {
      name: "ValidationException",
      reason: "INVALID_DEPENDENCY_REQUEST",
      message: "The KMS key of the snapshot is disabled.",
    },
  },
  "kms-key-missing": {
    does: "the KMS key is gone",
    strikes: WITH_KEY,
    error: {
      name: "ResourceNotFoundException",
      reason: "DEPENDENCY_RESOURCE_NOT_FOUND",
      message: "The KMS key of the snapshot does not exist.",
    },
  },
  "kms-grant-missing": {
    does: "the grant to use the KMS key is gone",
    strikes: WITH_KEY,
    error: {
      name: "ResourceNotFoundException",
      reason: "GRANT_NOT_FOUND",
      message: "The grant for the KMS key does not exist.",
    },
  },
  "kms-access-denied": {
    does: "the caller may not use the KMS key",
    strikes: WITH_KEY,
    error: {
      name: "AccessDeniedException",
      reason: "DEPENDENCY_ACCESS_DENIED",
      message: "The KMS key of the snapshot may not be used.",
    },
  },
  "expired-credentials": {
    does: "the session token of temporary credentials has expired",
    error: {
      name: "ExpiredTokenException",
      message: "The security token included in the request is expired",
    },
  },
  // botocore#3587, aws-sdk-js#254.
  "clock-skew": {
    does: "sets the server's clock `minutes` (10) ahead, or behind where negative: its Date and all its times; what was signed more than 5 minutes off is refused with `name` (InvalidSignatureException)",
    words: ["minutes", "name"],
    isAddition: true,
  },
} as const satisfies Record<string, FaultKind>;

export type FaultAction = keyof typeof TABLE;

export const FAULTS: Readonly<Record<FaultAction, FaultKind>> = TABLE;

/** Whether an action can strike calls of an operation. */
export function canStrike(action: FaultAction, operation: Operation): boolean {
  return FAULTS[action].strikes?.includes(operation) ?? true;
}
