/** Takes away a mount that has no process to ask: by umount(8) as root, else by fusermount3. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { Failure } from "../common/failure.js";

const run = promisify(execFile);

/** @throws Failure EBUSY or EPERM with the tool's own words. */
export async function clearMount(mountPoint: string, lazy: boolean): Promise<void> {
  const [tool, args] =
    process.getuid?.() === 0
      ? ["umount", lazy ? ["-l", mountPoint] : [mountPoint]]
      : ["fusermount3", ["-u", ...(lazy ? ["-z"] : []), mountPoint]];
  try {
    await run(tool as string, args as string[], { timeout: 30_000 });
  } catch (cause) {
    const said = String((cause as { stderr?: string }).stderr ?? "").trim();
    const busy = /busy/i.test(said);
    throw new Failure(
      busy ? "EBUSY" : "EPERM",
      busy
        ? `${mountPoint} is in use: close its files, detach loop devices on them (losetup -d), then try again, or use --lazy.`
        : `${mountPoint} cannot be unmounted: ${said || (cause as Error).message}.`,
      { cause },
    );
  }
}
