/**
 * What a mount needs of FUSE, whichever driver does it: show a FileSystem at a mount point, say when
 * it is gone, take it away. A driver is told nothing of snapshots or of the service.
 */
import type { DirectReads } from "../common/direct-reads.js";
import type { FileSystem } from "../filesystem/filesystem.js";

export interface MountRequest {
  /** Absolute path of an existing directory. */
  readonly mountPoint: string;
  /** What /proc/mounts shows as the source, e.g. the snapshot id. */
  readonly source: string;
  readonly fileSystem: FileSystem;
  /** mount -o options in the user's words, e.g. allow_other, default_permissions, noatime. */
  readonly options: readonly string[];
  /** Bytes that the kernel may read ahead, set where permitted; the kernel's own default else. */
  readonly readAheadBytes?: number;
  /** Lets the driver's thread answer reads whose bytes are in memory already; see DirectReads. */
  readonly directReads?: DirectReads;
  /** Anything worth a line in the log; never block data. */
  log(level: "debug" | "warn" | "error", message: string): void;
}

/**
 * Requests that the kernel sends in the background at a time (readahead, asynchronous direct reads), and how
 * many it calls congestion. What exceeds them waits in the kernel, where no --io-timeout counts.
 */
export const MAX_BACKGROUND = 64;
export const CONGESTION_THRESHOLD = 48;

export interface Mounted {
  /** Resolves once the kernel has let go of the mount, whoever unmounted it; rejects on a defect. */
  readonly ended: Promise<void>;
  /**
   * Takes the mount away. @throws Failure EBUSY while files are open there.
   * @param lazy detach now, end when the last file is closed.
   */
  unmount(lazy?: boolean): Promise<void>;
}

export interface FuseDriver {
  readonly name: "kernel" | "libfuse";
  /**
   * Resolves when the mount answers requests.
   * @throws Failure with a sentence for each thing that users meet: no /dev/fuse, no permission, mount
   * point missing, not a directory, busy or stale, fusermount3 missing, allow_other not enabled.
   */
  mount(request: MountRequest): Promise<Mounted>;
}
