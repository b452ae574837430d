/**
 * The dirty bytes themselves, at the same offsets as in the volume, in sparse files of 8 TiB each
 * (`overlay.img`, `overlay-1.img`, …): one file of 64 TiB is more than ext4 allows (16 TiB). Which
 * bytes count is not known here but in the dirty map; everything else in the files is stale and must
 * not be read.
 */
import { Failure } from "../common/failure.js";
import { TIB } from "../common/sizes.js";
import type { DiskFile, SessionFiles } from "./disk-file.js";

const SEGMENT_BYTES = 8 * TIB;

/** Name of the overlay file that holds the bytes at `segment` × 8 TiB. */
function segmentName(segment: number): string {
  return segment === 0 ? "overlay.img" : `overlay-${segment}.img`;
}

export class OverlayStore {
  readonly #files: SessionFiles;
  readonly #segmentBytes: number;
  readonly #segments: (DiskFile | undefined)[] = [];
  /** At first all: a process that was killed may have left bytes that only the page cache holds. */
  readonly #unsynced = new Set<DiskFile>();
  #newNames = true;

  /**
   * @param size of the volume, bytes
   * @param segmentBytes where the files divide; the same at each opening (tests choose a small one)
   */
  constructor(files: SessionFiles, size: number, segmentBytes = SEGMENT_BYTES) {
    this.#files = files;
    this.#segmentBytes = segmentBytes;
    for (let segment = 0; segment * segmentBytes < size; segment++) {
      const name = segmentName(segment);
      const file = files.exists(name) ? files.open(name) : undefined;
      this.#segments.push(file);
      if (file !== undefined) this.#unsynced.add(file);
    }
  }

  /** Writes all bytes or throws a Failure (ENOSPC, EIO); some may be written then. */
  writeAt(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const { segment, within, length } = this.#locate(offset + done, bytes.length - done);
      const file = this.#segments[segment] ?? this.#create(segment);
      this.#unsynced.add(file);
      file.writeAt(within, length === bytes.length ? bytes : bytes.subarray(done, done + length));
      done += length;
    }
  }

  /** Fills `target`. @throws Failure EIO where the files hold fewer bytes: never zeros instead */
  readAt(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const { segment, within, length } = this.#locate(offset + done, target.length - done);
      const part = target.subarray(done, done + length);
      const n = this.#segments[segment]?.readAt(within, part) ?? 0;
      if (n < length) {
        throw new Failure(
          "EIO",
          `${segmentName(segment)} in the session folder is shorter than its journal says: it was changed or damaged by something else.`,
        );
      }
      done += length;
    }
  }

  /** Makes everything written before the call durable. */
  async sync(): Promise<void> {
    const files = [...this.#unsynced];
    this.#unsynced.clear();
    if (this.#newNames) {
      this.#newNames = false;
      await this.#files.syncFolder();
    }
    for (const file of files) await file.sync();
  }

  /** Each file, the bytes of the volume that it is for, and its size in bytes (0: there is none). */
  segments(): { name: string; start: number; end: number; size: number }[] {
    return this.#segments.map((file, segment) => ({
      name: segmentName(segment),
      start: segment * this.#segmentBytes,
      end: (segment + 1) * this.#segmentBytes,
      size: file?.size ?? 0,
    }));
  }

  /** The next run of allocated bytes at or after `offset`, [start, end). */
  nextData(offset: number): [number, number] | undefined {
    const first = Math.floor(offset / this.#segmentBytes);
    for (let segment = first; segment < this.#segments.length; segment++) {
      const base = segment * this.#segmentBytes;
      const found = this.#segments[segment]?.nextData(Math.max(0, offset - base));
      if (found !== undefined) return [base + found[0], base + found[1]];
    }
    return undefined;
  }

  /** Gives the space of a range back, where the file system can. */
  punch(offset: number, length: number): void {
    this.#inEach(offset, length, (file, within, part) => file.punch(within, part));
  }

  /** A range that is synced and will not be read soon: its memory is given back. */
  dropCached(offset: number, length: number): void {
    this.#inEach(offset, length, (file, within, part) => file.dropCached(within, part));
  }

  close(): void {
    for (const file of this.#segments) file?.close();
  }

  /** Does something to a range's part in each file that there is. */
  #inEach(
    offset: number,
    length: number,
    act: (file: DiskFile, within: number, length: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const part = this.#locate(offset + done, length - done);
      const file = this.#segments[part.segment];
      if (file !== undefined) act(file, part.within, part.length);
      done += part.length;
    }
  }

  #locate(offset: number, length: number): { segment: number; within: number; length: number } {
    const segment = Math.floor(offset / this.#segmentBytes);
    const within = offset - segment * this.#segmentBytes;
    return { segment, within, length: Math.min(length, this.#segmentBytes - within) };
  }

  #create(segment: number): DiskFile {
    const file = this.#files.open(segmentName(segment));
    this.#segments[segment] = file;
    this.#newNames = true;
    return file;
  }
}
