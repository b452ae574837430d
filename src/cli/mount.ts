/**
 * `ebsmount mount` and `ebsmount create`: what the user can ask for. What is done about it is in
 * mount-action.ts and write-action.ts, loaded only then.
 */
import { type Command, Option } from "commander";
import { GIB, MIB } from "../common/sizes.js";
import { checkEstimate, type EstimateOptions, estimateOptions } from "./estimate.js";
import {
  collect,
  countParser,
  durationParser,
  parseName,
  refuseGiven,
  serviceOptions,
  sizeParser,
  stateDirOption,
} from "./options.js";
import { DESCRIBING, snapshotOptions } from "./snapshot-options.js";
import type { WriteCommandOptions } from "./write-action.js";

/** The options that every command that mounts has. */
function mountingOptions(command: Command): Command {
  return serviceOptions(command)
    .option("-f, --foreground", "stay in front; log to the terminal")
    .addOption(
      new Option("-o <options>", "mount options, as for mount(8): ro, allow_other, uid=1000, …")
        .argParser(collect)
        .default([] as string[], "nosuid,nodev"),
    )
    .addOption(
      new Option("--cache-size <size>", "memory for blocks, shared by all snapshots of the mount")
        .env("EBSMOUNT_CACHE_SIZE")
        .argParser(sizeParser("--cache-size", 8 * MIB))
        .default(256 * MIB, "256MiB"),
    )
    .addOption(
      new Option(
        "--cache-dir <folder>",
        "keep blocks here for later mounts; a folder of yours alone, and not encrypted by us",
      ).env("EBSMOUNT_CACHE_DIR"),
    )
    .addOption(
      new Option("--cache-dir-size <size>", "most disk space that --cache-dir may take")
        .env("EBSMOUNT_CACHE_DIR_SIZE")
        .argParser(sizeParser("--cache-dir-size", 16 * MIB))
        .default(10 * GIB, "10GiB"),
    )
    .addOption(
      new Option("--readahead <size>", "most to fetch ahead of a sequential reader; 0 for none")
        .env("EBSMOUNT_READAHEAD")
        .argParser(sizeParser("--readahead", 0))
        .default(64 * MIB, "64MiB"),
    )
    .addOption(
      new Option("--fuse-driver <driver>", "how to speak to the kernel")
        .env("EBSMOUNT_FUSE_DRIVER")
        .choices(["kernel", "libfuse"])
        .default("kernel"),
    )
    .addOption(
      new Option(
        "--log-file <file>",
        "where a mount in the background logs (default: in the state folder)",
      )
        .env("EBSMOUNT_LOG_FILE")
        .argParser(parseName),
    )
    .addOption(stateDirOption());
}

/** The options that every command that mounts for writing has. */
function writingOptions(command: Command): Command {
  return snapshotOptions(command)
    .addOption(
      new Option("--size <size>", "size of the volume, rounded up to whole GiB").argParser(
        sizeParser("--size", 1),
      ),
    )
    .addOption(
      new Option("--overlay-limit <size>", "most changed data to keep on the local disk")
        .env("EBSMOUNT_OVERLAY_LIMIT")
        .argParser(sizeParser("--overlay-limit", MIB))
        .default(64 * GIB, "64GiB"),
    )
    .addOption(
      new Option(
        "--discard <how>",
        "holes: take discards (fstrim, mkfs) and leave what was discarded out of the snapshot. WARNING: " +
          "a loop device sends zeros that a file system relies on as discards too, and on an encrypted " +
          "volume what is left out reads as random bytes: only for snapshots that never become one. " +
          "refuse: discards are not supported, and zeros are written where they matter",
      )
        .env("EBSMOUNT_DISCARD")
        .choices(["refuse", "holes"])
        .default("refuse"),
    )
    .addOption(
      new Option("--no-writeback", "upload nothing before the unmount").env(
        "EBSMOUNT_NO_WRITEBACK",
      ),
    )
    .addOption(
      new Option("--writeback-concurrency <count>", "uploads at one time while mounted")
        .env("EBSMOUNT_WRITEBACK_CONCURRENCY")
        .argParser(countParser("--writeback-concurrency", 1, 256))
        .default(8),
    )
    .addOption(
      new Option("--writeback-delay <time>", "upload blocks that have been quiet for so long")
        .env("EBSMOUNT_WRITEBACK_DELAY")
        .argParser(durationParser("--writeback-delay", 100, 24 * 3600_000))
        .default(10_000, "10s"),
    );
}

const OF_A_SNAPSHOT = [...DESCRIBING, "wait"];
const OF_UPLOADS = ["writeback", "writebackConcurrency", "writebackDelay"];
const OF_WRITING = ["size", "overlayLimit", "discard"];

/** @throws UsageFailure for an option that the driver would not heed. */
function refuseUnheededByDriver(command: Command, options: WriteCommandOptions): void {
  if (options.fuseDriver !== "libfuse" || options.discard !== "holes") return;
  refuseGiven(command, ["discard"], "the libfuse driver cannot take discards.");
}

/** @throws UsageFailure for an option that this kind of mount would not heed. */
function refuseUnheeded(command: Command, options: WriteCommandOptions): void {
  refuseUnheededByDriver(command, options);
  if (options.resume !== undefined) {
    const why = "a resumed session keeps what it was made with.";
    refuseGiven(command, ["size", "scratch", ...DESCRIBING], why);
    refuseGiven(command, ["estimate"], "name the session's snapshot instead of --resume.");
  } else if (options.scratch) {
    const why = "a scratch mount makes no snapshot.";
    refuseGiven(command, [...OF_A_SNAPSHOT, ...OF_UPLOADS, "discard"], why);
  } else if (!options.rw) {
    const why = "a read-only mount makes no snapshot; add --rw.";
    refuseGiven(command, [...OF_A_SNAPSHOT, ...OF_UPLOADS, ...OF_WRITING], why);
  }
}

export function registerMount(program: Command): void {
  const command = program
    .command("mount")
    .summary("show snapshots as raw image files")
    .description(
      "Shows each SNAPSHOT as MOUNTPOINT/SNAPSHOT.img, a raw disk image whose blocks are fetched when " +
        "they are read. Ends with status 0 once the mount is usable; it goes on in the background. " +
        "With --rw, what is written becomes a new snapshot on unmount; with --scratch, it is thrown away.",
    )
    .argument("<snapshot-and-mountpoint...>", "SNAPSHOT... MOUNTPOINT")
    .usage("[options] SNAPSHOT... MOUNTPOINT")
    .addOption(
      new Option("--rw", "writable: changes become a new snapshot on unmount").conflicts("scratch"),
    )
    .option("--scratch", "writable: changes are kept locally and thrown away on unmount")
    .option(
      "--resume <session>",
      "go on in an interrupted session: mount --resume SESSION MOUNTPOINT",
    );
  estimateOptions(command, "reading all of it once");
  writingOptions(mountingOptions(command)).action(
    async (places: string[], options: WriteCommandOptions & EstimateOptions) => {
      const { mountSnapshots, tellingParent } = await import("./mount-action.js");
      checkEstimate(options);
      refuseUnheeded(command, options);
      if (options.estimate) {
        const { estimateMount } = await import("./mount-estimate.js");
        await estimateMount(places, options);
        return;
      }
      if (options.rw || options.scratch || options.resume !== undefined) {
        const { mountForWriting } = await import("./write-action.js");
        await tellingParent(() => mountForWriting(places, options));
      } else {
        await tellingParent(() => mountSnapshots(places, options));
      }
    },
  );
}

export function registerCreate(program: Command): void {
  const command = program
    .command("create")
    .summary("start a blank volume, to become a snapshot")
    .description(
      "Shows a blank volume of --size as MOUNTPOINT/volume.img: partition it, make a file system, fill " +
        "it. On unmount it becomes a snapshot.",
    )
    .argument("<mountpoint>", "where to mount");
  writingOptions(mountingOptions(command)).action(
    async (mountPoint: string, options: WriteCommandOptions) => {
      const { tellingParent } = await import("./mount-action.js");
      const { createBlank } = await import("./write-action.js");
      refuseUnheededByDriver(command, options);
      await tellingParent(() => createBlank(mountPoint, options));
    },
  );
}
