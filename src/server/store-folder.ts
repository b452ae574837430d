/**
 * The store folder itself: made, locked for one process, and given an identity on first use (owner
 * id, and the secret that its tokens are coded with, so that tokens outlive a restart).
 */
import { randomBytes, randomInt } from "node:crypto";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../common/failure.js";
import { makeFolder } from "../common/make-folder.js";
import { tryLock } from "../common/posix.js";
import { replaceFile } from "./snapshot-record.js";

const FORMAT = 1;

/**
 * Makes the folder if missing and takes its lock.
 * @returns the descriptor that holds the lock; close it to let go.
 * @throws Failure EACCES, EBUSY
 */
export function lockFolder(folder: string): number {
  let lock: number;
  try {
    makeFolder(join(folder, "snapshots"), 0o700);
    lock = openSync(join(folder, "store.lock"), "a", 0o600);
  } catch (cause) {
    throw new Failure(
      "EACCES",
      `The store ${folder} cannot be used (${(cause as Error).message}); choose a folder that you may write.`,
      { cause },
    );
  }
  if (tryLock(lock)) return lock;
  closeSync(lock);
  throw new Failure(
    "EBUSY",
    `Another endpoint is using the store ${folder}; stop it or choose another folder.`,
  );
}

/** The store's identity, made on first use. @throws Failure EINVAL for another format, EIO. */
export function readIdentity(folder: string): { ownerId: string; secret: string } {
  const path = join(folder, "store.json");
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    const identity = {
      format: FORMAT,
      ownerId: String(randomInt(1e11, 1e12 - 1)),
      secret: randomBytes(32).toString("base64"),
    };
    replaceFile(path, JSON.stringify(identity), true);
    return identity;
  }
  const identity = parseIdentity(text);
  if (identity?.format !== undefined && identity.format !== FORMAT) {
    throw new Failure("EINVAL", `The store ${folder} has a format that this version cannot read.`);
  }
  const { ownerId, secret } = identity ?? {};
  if (typeof ownerId !== "string" || typeof secret !== "string") {
    throw new Failure("EIO", `${path} is damaged: restore it, or choose another folder.`);
  }
  return { ownerId, secret };
}

function parseIdentity(text: string): Record<string, unknown> | undefined {
  try {
    return (JSON.parse(text) as Record<string, unknown> | null) ?? undefined;
  } catch {
    return undefined;
  }
}
