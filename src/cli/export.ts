/** `ebsmount export`: what the user can ask for; export-action.ts does it. */
import type { Command } from "commander";
import { estimateOptions } from "./estimate.js";
import type { ExportOptions } from "./export-action.js";
import { serviceOptions } from "./options.js";

export function registerExport(program: Command): void {
  const command = program
    .command("export")
    .summary("write a snapshot into a file, a block device or a pipe")
    .description(
      "Writes all of SNAPSHOT to FILE, a sparse raw image, every block verified. Until it is whole it " +
        "is called FILE.partial; the same command goes on with that after an interruption. FILE can be " +
        "a block device, which is overwritten, and - is standard output.",
    )
    .argument("<snapshot>", "snapshot id")
    .argument("<file>", "file to make, block device to overwrite, or -")
    .option("--force", "replace FILE, and forget the unfinished export of another snapshot");
  estimateOptions(command, "it");
  // Warnings would tear the progress bar; what matters becomes the command's own error.
  serviceOptions(command, "error").action(
    async (snapshot: string, file: string, options: ExportOptions) => {
      const { exportSnapshot } = await import("./export-action.js");
      await exportSnapshot(snapshot, file, options);
    },
  );
}
