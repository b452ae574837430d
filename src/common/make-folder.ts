/**
 * Makes a folder and those above it that are missing. Node's own recursive mkdir goes on for ever where
 * the kernel answers "no such file" under a folder that exists, as in /proc.
 */
import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/**
 * @param mode of the folders that are made, less the umask.
 * @returns whether the folder was made.
 * @throws what mkdir(2) says; ENOTDIR where something else is there.
 */
export function makeFolder(path: string, mode: number): boolean {
  const missing: string[] = [];
  for (let at = resolve(path); !existsSync(at); at = dirname(at)) missing.push(at);
  for (const folder of missing.reverse()) {
    try {
      mkdirSync(folder, { mode });
    } catch (error) {
      // Another process may have been faster.
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
  if (!statSync(path).isDirectory()) {
    throw Object.assign(new Error(`${path} is not a folder`), { code: "ENOTDIR" });
  }
  return missing.length > 0;
}
