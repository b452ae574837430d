/**
 * Files that are believed on a later run although they lie where others may be able to make files:
 * only what this user made, and what nobody else can write, is taken up again.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { Failure } from "./failure.js";

/**
 * Opens a file that is this user's own, and not by way of a symbolic link.
 * @param create makes it, with mode 0600, where it is missing.
 * @throws Failure EEXIST where something else has that name; ENOENT, and others of open(2), as they come.
 */
export async function openOwnFile(path: string, create: boolean): Promise<FileHandle> {
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;
  const flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK;
  if (create) {
    try {
      return await open(path, flags | O_CREAT | O_EXCL, 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
  const file = await open(path, flags).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ELOOP" ? foreign(path) : error;
  });
  const found = await file.stat();
  const isOwn = found.isFile() && found.uid === process.geteuid?.();
  if (isOwn && (found.mode & 0o022) === 0) return file;
  await file.close();
  throw foreign(path);
}

function foreign(path: string): Failure {
  return new Failure(
    "EEXIST",
    `${path} exists and is not a file that you alone can write: it is not believed. Remove it, or choose another folder.`,
  );
}
