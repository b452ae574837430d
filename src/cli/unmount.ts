/**
 * `ebsmount unmount`: asks the mount's process to end, shows the commit's progress, and prints the
 * new snapshot's id alone on standard output where there is one.
 */
import type { Command } from "commander";
import { stateDirOption } from "./options.js";

export function registerUnmount(program: Command): void {
  program
    .command("unmount")
    .alias("umount")
    .summary("end a mount; what was written becomes a snapshot")
    .description(
      "Ends the mount at MOUNTPOINT. After a read-write mount, the changes become a new snapshot, " +
        "whose id is printed on standard output. Also clears the mount point of a process that died.",
    )
    .argument("<mountpoint>", "where it is mounted")
    .option("-z, --lazy", "detach now, end when its last open file is closed")
    .addOption(stateDirOption())
    .action(async (mountPoint: string, options: { lazy?: boolean; stateDir?: string }) => {
      const { unmount } = await import("./unmount-action.js");
      await unmount(mountPoint, options.lazy ?? false, options.stateDir);
    });
}
