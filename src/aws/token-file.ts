/** Reads a file that holds one token; a mistake about it names the file and who names the file. */
import { readFileSync, statSync } from "node:fs";
import { quoted } from "./config-files.js";
import { CredentialsMistake } from "./credentials.js";

/** Largest token that is read, bytes; a JSON web token has 1 to 10 KB. */
const MAX_TOKEN_BYTES = 256 * 1024;

/** @param from the variable or profile that names the file. @throws CredentialsMistake */
export function readTokenFile(path: string, from: string): string {
  const refuse = (why: string, cause?: unknown): never => {
    throw new CredentialsMistake(`${from} names the file ${quoted(path)}, ${why}.`, { cause });
  };
  let token = "";
  try {
    const found = statSync(path);
    if (!found.isFile()) refuse("which is not a file");
    if (found.size > MAX_TOKEN_BYTES) refuse("which is larger than 256 KiB and so no token");
    token = readFileSync(path, "utf8");
  } catch (cause) {
    if (cause instanceof CredentialsMistake) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    refuse(code === "ENOENT" ? "which does not exist" : `which cannot be read (${code})`, cause);
  }
  if (token.trim() === "") refuse("which is empty");
  return token;
}
