/** `ebsmount import`: what the user can ask for; import-action.ts does it. */
import { type Command, Option } from "commander";
import { estimateOptions } from "./estimate.js";
import type { ImportOptions } from "./import-action.js";
import { serviceOptions, sizeParser, stateDirOption } from "./options.js";
import { snapshotOptions } from "./snapshot-options.js";

export function registerImport(program: Command): void {
  const command = program
    .command("import")
    .summary("make a snapshot of a raw image: a file, a block device or a stream")
    .description(
      "Makes a snapshot of FILE, a raw disk image (sparse or not) or a block device, and prints its " +
        "id on standard output. FILE can be a named pipe or a socket, and - is standard input: a " +
        "stream needs --size, and is read from its start again when the import is gone on with. Every " +
        "block that was ever written is uploaded, zeros too; holes of a sparse file are not. A source " +
        "that cannot tell the two, as any stream, is uploaded whole. The volume is whole GiB, rounded up.",
    )
    .argument("<file>", "raw image file, block device, named pipe, socket, or -")
    .addOption(
      new Option(
        "--size <size>",
        "size of the image in a stream, such as 8GiB; the stream has to end exactly there",
      ).argParser(sizeParser("--size", 1)),
    )
    .option(
      "--parent <snapshot>",
      "upload only what differs from this snapshot, which it continues",
    )
    .option("--client-token <text>", "go on with the import that was started with this token")
    .addOption(
      new Option(
        "--omit-zero-blocks",
        "upload no block of zeros. WARNING: what is left out reads as random bytes on an encrypted " +
          "volume, also of an account that encrypts by default; file systems and files that rely on " +
          "written zeros are damaged there",
      ),
    )
    .addOption(
      new Option(
        "--all-blocks",
        "upload holes too, as zeros: for an image whose written zeros have become holes on the way, as " +
          "by qemu-img convert (whose -S 0 keeps them) or a loop device over a sparse file",
      ).conflicts("omitZeroBlocks"),
    )
    .addOption(stateDirOption());
  estimateOptions(command, "it");
  // Warnings would tear the progress bar; what matters becomes the command's own error.
  serviceOptions(snapshotOptions(command), "error").action(
    async (file: string, options: ImportOptions) => {
      const { importFile } = await import("./import-action.js");
      await importFile(file, options);
    },
  );
}
