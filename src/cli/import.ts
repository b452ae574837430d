/** `ebsmount import`: what the user can ask for; import-action.ts does it. */
import type { Command } from "commander";
import type { ImportOptions } from "./import-action.js";
import { serviceOptions, stateDirOption } from "./options.js";
import { snapshotOptions } from "./snapshot-options.js";

export function registerImport(program: Command): void {
  const command = program
    .command("import")
    .summary("make a snapshot of a raw image file or a block device")
    .description(
      "Makes a snapshot of FILE, a raw disk image (sparse or not) or a block device, and prints its " +
        "id on standard output. Zeros are not uploaded. The volume is whole GiB, rounded up.",
    )
    .argument("<file>", "raw image file or block device")
    .option(
      "--parent <snapshot>",
      "upload only what differs from this snapshot, which it continues",
    )
    .option("--client-token <text>", "go on with the import that was started with this token")
    .addOption(stateDirOption());
  // Warnings would tear the progress bar; what matters becomes the command's own error.
  serviceOptions(snapshotOptions(command), "error").action(
    async (file: string, options: ImportOptions) => {
      const { importFile } = await import("./import-action.js");
      await importFile(file, options);
    },
  );
}
