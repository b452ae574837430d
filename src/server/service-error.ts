/**
 * The exceptions of the EBS direct APIs, as an operation throws them and as they go over the wire:
 * an HTTP status, the exception's name in the x-amzn-ErrorType header and in the JSON body, a reason
 * that programs branch on and a message for people. Source: EBS direct APIs reference, 2019-11-02,
 * and its "Common errors" for those that AWS's front door answers with before the service is asked.
 */

/** HTTP status of each exception of the service. */
const STATUS: Readonly<Record<string, number>> = {
  AccessDeniedException: 403,
  ValidationException: 400,
  ResourceNotFoundException: 404,
  RequestThrottledException: 400,
  ThrottlingException: 400,
  ServiceQuotaExceededException: 402,
  ConcurrentLimitExceededException: 400,
  ConflictException: 409,
  InternalServerException: 500,
  ServiceUnavailableException: 503,
};

/** HTTP status of those of the front door; their message is spelt `message` on the wire. */
const FRONT_DOOR_STATUS: Readonly<Record<string, number>> = {
  ExpiredTokenException: 403,
  IncompleteSignatureException: 403,
  InvalidSignatureException: 403,
  MissingAuthenticationTokenException: 403,
  UnrecognizedClientException: 403,
  RequestExpired: 400,
  RequestTimeoutException: 408,
  UnknownOperationException: 404,
};

export class ServiceError extends Error {
  override readonly name: string;
  readonly status: number;
  readonly reason: string | undefined;

  /**
   * @param name one of the service's exceptions, or any other that a fault rule asks for.
   * @param status HTTP status; the exception's own unless given, 400 for a name not known here.
   */
  constructor(name: string, message: string, reason?: string, status?: number) {
    super(message);
    this.name = name;
    this.reason = reason;
    this.status = status ?? STATUS[name] ?? FRONT_DOOR_STATUS[name] ?? 400;
  }

  /** The JSON body. */
  get body(): string {
    const { name, message, reason } = this;
    return JSON.stringify(
      name in FRONT_DOOR_STATUS
        ? { __type: name, message }
        : { __type: name, Message: message, Reason: reason },
    );
  }
}

/**
 * The store's own files do not hold what they must: an InternalServerException that is also logged,
 * since only whoever keeps the folder can do something about it.
 */
export class StoreDamage extends ServiceError {
  constructor(message: string) {
    super("InternalServerException", message);
  }
}

/** A ValidationException with one of its reasons. */
export function invalid(reason: string, message: string): ServiceError {
  return new ServiceError("ValidationException", message, reason);
}

/** The ResourceNotFoundException for a snapshot. */
export function noSnapshot(snapshotId: string): ServiceError {
  return new ServiceError(
    "ResourceNotFoundException",
    `The snapshot '${snapshotId}' does not exist.`,
    "SNAPSHOT_NOT_FOUND",
  );
}
