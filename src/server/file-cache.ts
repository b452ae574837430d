/**
 * Open data files, at most so many: reads of a thousand snapshots must not hold a thousand file
 * descriptors. A file in use is never closed under its reader; one that drops out of the cache
 * closes when its last reader is done.
 */
import { close, closeSync, open } from "node:fs";
import { promisify } from "node:util";
import { LRUCache } from "lru-cache";

const openFile = promisify(open);

/** An open file, lent until `release`. */
class LentFile {
  readonly fd: number;
  #users = 0;
  #dropped = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  lend(): this {
    this.#users += 1;
    return this;
  }

  release(): void {
    this.#users -= 1;
    if (this.#dropped && this.#users === 0) close(this.fd, () => {});
  }

  /** The cache lets go of it. */
  drop(): void {
    this.#dropped = true;
    if (this.#users === 0) closeSync(this.fd);
  }
}

export class FileCache {
  readonly #files: LRUCache<string, LentFile>;

  /** @param max open files kept. */
  constructor(max: number) {
    this.#files = new LRUCache({ max, dispose: (file) => file.drop() });
  }

  /** The file, open for reading; the caller releases it. @throws what open(2) says. */
  async lend(path: string): Promise<LentFile> {
    const known = this.#files.get(path);
    if (known !== undefined) return known.lend();
    const fd = await openFile(path, "r");
    const meanwhile = this.#files.get(path);
    if (meanwhile !== undefined) {
      closeSync(fd);
      return meanwhile.lend();
    }
    const file = new LentFile(fd).lend();
    this.#files.set(path, file);
    return file;
  }

  forget(path: string): void {
    this.#files.delete(path);
  }

  close(): void {
    this.#files.clear();
  }
}
