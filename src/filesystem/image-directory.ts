/**
 * The file system of a mount: one root directory with one image file a snapshot, each exactly as
 * long as its device. Inode numbers are fixed (the root is 1, files follow in the order given), so
 * names, attributes and listings need no table but an array. Who may read: the owner alone, unless
 * the mount is open to others (`allow_other`), when everybody may read what the mode says; `umask=`
 * overrides both. A disk image holds everybody's secrets, so the narrow mode is the default.
 */
import { Failure } from "../common/failure.js";
import { SECTOR_SIZE } from "../common/sizes.js";
import {
  type BlockDevice,
  isWritable,
  type View,
  type WritableBlockDevice,
} from "../device/block-device.js";
import {
  type AttributeChanges,
  type Attributes,
  type DirectoryEntry,
  type FileSystem,
  type OpenFile,
  ROOT_INODE,
  type StatFs,
  type Whence,
} from "./filesystem.js";
import { Seeker } from "./seek.js";

/** One image file. */
export interface ImageFile {
  /** One path component, e.g. `snap-0123.img`. */
  readonly name: string;
  readonly device: BlockDevice;
}

export interface ImageDirectoryOptions {
  /** Owner of everything shown; default: who runs this process. */
  readonly uid?: number;
  readonly gid?: number;
  /** Permission bits to take away from 0666 (files) and 0777 (the directory); default: see allowOther. */
  readonly umask?: number;
  /** The mount is open to other users: the default umask is then 022 instead of 077. */
  readonly allowOther?: boolean;
  /** Nothing can be written, whatever the devices can; default: true unless a device is writable. */
  readonly readOnly?: boolean;
  /** Seconds since the epoch, shown as every file's time until it is written; default: now. */
  readonly modifiedAt?: number;
}

interface Node {
  readonly inode: number;
  readonly name: string;
  readonly device: BlockDevice;
  readonly writable: WritableBlockDevice | undefined;
  modifiedAt: number;
}

interface Handle {
  readonly node: Node;
  readonly writable: boolean;
  readonly sync: boolean;
  readonly seeker: Seeker;
}

/** The unit of statfs. A loop device takes it as its discard granularity, so it is kept small. */
const STATFS_BLOCK = 4096;
/** Attributes that can still change (st_blocks not known yet, times of a writable file). */
const SHORT_TIME_TO_LIVE = 1;
/** A completed snapshot never changes. */
const LONG_TIME_TO_LIVE = 3600;
const NAME_LENGTH = 255;
const EMPTY_VIEW: View = { parts: [], release: () => {} };

/**
 * @param files names must be distinct and without slashes.
 * @throws Failure EINVAL for names that cannot be shown.
 */
export function createFileSystem(
  files: readonly ImageFile[],
  options: ImageDirectoryOptions = {},
): FileSystem {
  return new ImageDirectory(files, options);
}

class ImageDirectory implements FileSystem {
  readonly readOnly: boolean;
  readonly #nodes: Node[] = [];
  readonly #byName = new Map<string, Node>();
  /** As many as the kernel has files open here; its own limits (ulimit -n, file-max) bound it. */
  readonly #handles = new Map<number, Handle>();
  #nextHandle = 1;
  readonly #uid: number;
  readonly #gid: number;
  readonly #fileMode: number;
  readonly #directoryMode: number;
  readonly #mountedAt: number;
  #allKnown = false;

  constructor(files: readonly ImageFile[], options: ImageDirectoryOptions) {
    this.readOnly = options.readOnly ?? !files.some((file) => isWritable(file.device));
    this.#uid = options.uid ?? process.getuid?.() ?? 0;
    this.#gid = options.gid ?? process.getgid?.() ?? 0;
    const umask = options.umask ?? (options.allowOther === true ? 0o022 : 0o077);
    const unwritable = this.readOnly ? 0o222 : 0;
    this.#fileMode = 0o666 & ~umask & ~unwritable;
    this.#directoryMode = 0o777 & ~umask & ~unwritable;
    this.#mountedAt = options.modifiedAt ?? Math.floor(Date.now() / 1000);
    for (const { name, device } of files) this.#add(name, device);
  }

  #add(name: string, device: BlockDevice): void {
    const bytes = Buffer.byteLength(name);
    if (bytes === 0 || bytes > NAME_LENGTH || /[/\0]/.test(name) || /^\.\.?$/.test(name)) {
      throw new Failure("EINVAL", `"${name}" cannot be a file's name in the mount.`);
    }
    if (this.#byName.has(name)) {
      throw new Failure("EINVAL", `Two files in one mount cannot both be called ${name}.`);
    }
    const node: Node = {
      inode: ROOT_INODE + 1 + this.#nodes.length,
      name,
      device,
      writable: !this.readOnly && isWritable(device) ? device : undefined,
      modifiedAt: this.#mountedAt,
    };
    this.#nodes.push(node);
    this.#byName.set(name, node);
  }

  get timeToLive(): number {
    if (!this.readOnly) return SHORT_TIME_TO_LIVE;
    this.#allKnown ||= this.#nodes.every((node) => node.device.allocatedBytes() !== undefined);
    return this.#allKnown ? LONG_TIME_TO_LIVE : SHORT_TIME_TO_LIVE;
  }

  lookup(parent: number, name: string): Attributes {
    if (parent !== ROOT_INODE) throw new Failure("ENOTDIR", `Inode ${parent} is not a directory.`);
    const node = this.#byName.get(name);
    if (node === undefined) throw new Failure("ENOENT", `There is no file ${name} in the mount.`);
    return this.#attributesOf(node);
  }

  attributes(inode: number): Attributes {
    return inode === ROOT_INODE ? this.#root() : this.#attributesOf(this.#node(inode));
  }

  async setAttributes(inode: number, changes: AttributeChanges): Promise<Attributes> {
    const now = this.attributes(inode);
    if (this.readOnly) throw readOnlyFailure();
    if (changes.size !== undefined && changes.size !== now.size) {
      throw new Failure("EPERM", "An image's size is its volume's and cannot be changed here.");
    }
    if (
      (changes.mode !== undefined && changes.mode !== now.mode) ||
      (changes.uid !== undefined && changes.uid !== now.uid) ||
      (changes.gid !== undefined && changes.gid !== now.gid)
    ) {
      throw new Failure("EPERM", "Owner and mode are set at mount time: -o uid=, gid=, umask=.");
    }
    if (changes.modifiedAt !== undefined && inode !== ROOT_INODE) {
      this.#node(inode).modifiedAt = changes.modifiedAt;
    }
    return this.attributes(inode);
  }

  list(inode: number): readonly DirectoryEntry[] {
    if (inode !== ROOT_INODE) throw new Failure("ENOTDIR", `Inode ${inode} is not a directory.`);
    return this.#nodes.map((node) => ({ name: node.name, inode: node.inode, kind: "file" }));
  }

  statfs(): StatFs {
    let bytes = 0;
    for (const node of this.#nodes) bytes += node.device.size;
    return {
      blockSize: STATFS_BLOCK,
      blocks: Math.floor(bytes / STATFS_BLOCK),
      freeBlocks: 0,
      files: this.#nodes.length + 1,
      nameLength: NAME_LENGTH,
    };
  }

  open(inode: number, writable: boolean, sync: boolean): OpenFile {
    if (inode === ROOT_INODE) throw new Failure("EISDIR", "The root is a directory.");
    const node = this.#node(inode);
    if (writable && node.writable === undefined) throw readOnlyFailure();
    const handle = this.#nextHandle;
    this.#nextHandle += 1;
    this.#handles.set(handle, { node, writable, sync, seeker: new Seeker(node.device) });
    // Every change goes through this kernel, so its page cache is true across opens.
    return { handle, keepCache: true };
  }

  read(handle: number, offset: number, length: number, signal?: AbortSignal): Promise<View> {
    const { device } = this.#handle(handle).node;
    const available = Math.min(length, device.size - offset);
    return available <= 0 ? Promise.resolve(EMPTY_VIEW) : device.view(offset, available, signal);
  }

  write(handle: number, offset: number, data: Uint8Array): Promise<void> {
    return this.#change(handle, offset, data.byteLength, (device) => device.write(offset, data));
  }

  zero(handle: number, offset: number, length: number): Promise<void> {
    return this.#change(handle, offset, length, (device) => device.zero(offset, length));
  }

  async discard(handle: number, offset: number, length: number): Promise<void> {
    const inside = Math.min(length, this.#handle(handle).node.device.size - offset);
    if (inside <= 0) return;
    await this.#change(handle, offset, inside, (device) => device.discard(offset, inside));
  }

  async flush(handle: number): Promise<void> {
    await this.#handle(handle).node.writable?.flush();
  }

  async flushOnClose(handle: number): Promise<void> {
    const { node, writable } = this.#handle(handle);
    if (writable) await node.writable?.flush();
  }

  seek(handle: number, offset: number, whence: Whence): Promise<number> {
    const { seeker } = this.#handle(handle);
    return whence === "data" ? seeker.data(offset) : seeker.hole(offset);
  }

  release(handle: number): void {
    this.#handles.delete(handle);
  }

  /** Runs `change` on bytes that the handle may change; durable after it where the open asked so. */
  async #change(
    handle: number,
    offset: number,
    length: number,
    change: (device: WritableBlockDevice) => Promise<void>,
  ): Promise<void> {
    const { node, sync } = this.#handle(handle);
    const device = this.#writableAt(handle, offset, length);
    if (length > 0) await change(device);
    node.modifiedAt = Date.now() / 1000;
    if (sync) await device.flush();
  }

  #writableAt(handle: number, offset: number, length: number): WritableBlockDevice {
    const { node, writable } = this.#handle(handle);
    if (!writable) throw new Failure("EBADF", `${node.name} is not open for writing.`);
    if (node.writable === undefined) throw readOnlyFailure();
    if (offset + length > node.device.size) {
      throw new Failure("EFBIG", `${node.name} ends at byte ${node.device.size}.`);
    }
    return node.writable;
  }

  #node(inode: number): Node {
    const node = this.#nodes[inode - ROOT_INODE - 1];
    if (node === undefined) throw new Failure("ENOENT", `There is no inode ${inode}.`);
    return node;
  }

  #handle(handle: number): Handle {
    const found = this.#handles.get(handle);
    if (found === undefined) throw new Failure("EBADF", `There is no open file ${handle}.`);
    return found;
  }

  #root(): Attributes {
    return {
      inode: ROOT_INODE,
      kind: "directory",
      mode: this.#directoryMode,
      uid: this.#uid,
      gid: this.#gid,
      size: 0,
      sectors: 0,
      links: 2,
      modifiedAt: this.#mountedAt,
    };
  }

  #attributesOf(node: Node): Attributes {
    const { size } = node.device;
    // cp and tar look for holes only where st_blocks is below the size: while nothing is known, say
    // one unit less, so that they ask.
    const allocated = node.device.allocatedBytes() ?? size - SECTOR_SIZE;
    return {
      inode: node.inode,
      kind: "file",
      mode: node.writable === undefined ? this.#fileMode & ~0o222 : this.#fileMode,
      uid: this.#uid,
      gid: this.#gid,
      size,
      sectors: Math.ceil(allocated / SECTOR_SIZE),
      links: 1,
      modifiedAt: node.modifiedAt,
    };
  }
}

function readOnlyFailure(): Failure {
  return new Failure("EROFS", "This mount is read-only; mount with --rw to write.");
}
