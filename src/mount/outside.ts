/**
 * What the mount's process opens while it serves must not lie under its own mount point: the open would
 * wait for an answer that only the waiting process could give, and not even kill -9 would end it.
 */
import { realpathSync } from "node:fs";
import { dirname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { Failure } from "../common/failure.js";

/** This program's own folder: its threads and what it loads later come from there. */
const PROGRAM = fileURLToPath(new URL("..", import.meta.url));

/**
 * @param mountPoint without symbolic links.
 * @param places what else will be opened, by the option that names it.
 * @throws Failure EINVAL where one of them, or this program, lies at or below the mount point.
 */
export function checkOutside(
  mountPoint: string,
  places: Readonly<Record<string, string | undefined>>,
): void {
  const below = mountPoint === sep ? sep : `${mountPoint}${sep}`;
  for (const [what, place] of Object.entries({ ...places, "ebsmount itself": PROGRAM })) {
    if (!place) continue;
    const path = realPathSoFar(resolve(place));
    if (path !== mountPoint && !path.startsWith(below)) continue;
    throw new Failure(
      "EINVAL",
      `${mountPoint} cannot be the mount point: it holds ${what} (${path}), which could not be reached any more. Choose an empty directory.`,
    );
  }
}

/** Without symbolic links, as far as the path exists. */
function realPathSoFar(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const above = dirname(path);
    return above === path ? path : join(realPathSoFar(above), path.slice(above.length));
  }
}
