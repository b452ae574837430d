/**
 * The certificate authorities as one file, which is what libcurl keeps parsed between connections (a blob or
 * a folder it would read for each). A file alone is used as it is; with more beside it, all goes into a file
 * in memory, which lives as long as this thread's process.
 */
import { readFileSync, writeSync } from "node:fs";
import type { Trust } from "../transport.js";
import type { CLibrary } from "./library.js";

const made = new Map<string, string>();

/** @returns a path for CURLOPT_CAINFO; undefined leaves libcurl its default. */
export function trustFile({ file, extraPem }: Trust, c: CLibrary): string | undefined {
  if (extraPem === undefined) return file;
  const key = `${file ?? ""}\n${extraPem}`;
  let path = made.get(key);
  if (path === undefined) {
    const pem = file === undefined ? extraPem : `${readFileSync(file, "latin1")}\n${extraPem}`;
    const descriptor = c.memoryFile("ebsmount-ca");
    for (let at = 0, bytes = Buffer.from(pem, "latin1"); at < bytes.length; ) {
      at += writeSync(descriptor, bytes, at);
    }
    path = `/proc/self/fd/${descriptor}`;
    made.set(key, path);
  }
  return path;
}
