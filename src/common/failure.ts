/**
 * The one error that this program raises on purpose. It speaks to both sides: `errno` is what the
 * kernel is told when the failure ends a file operation, `message` is one clear sentence for a
 * person that says what happened and what to do. Anything else that is thrown is a defect; the
 * file system answers it with EIO and the log keeps its stack.
 */

/** Linux error numbers that this program answers with. Source: errno(3), asm-generic/errno.h. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ERANGE: 34,
  ENOSYS: 38,
  ENODATA: 61,
  EOPNOTSUPP: 95,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ESTALE: 116,
  EDQUOT: 122,
} as const;

export type ErrnoName = keyof typeof ERRNO;

export class Failure extends Error {
  override readonly name: string = "Failure";
  readonly errno: ErrnoName;

  /** @param message one sentence, for people: what happened and what to do. */
  constructor(errno: ErrnoName, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.errno = errno;
  }
}

/** The errno for anything thrown: its own where it is a Failure, else EIO. */
export function errnoOf(error: unknown): ErrnoName {
  return error instanceof Failure ? error.errno : "EIO";
}
