/**
 * `ebsmount sessions`, `commit` and `discard`: what to do about changes that are not a snapshot yet,
 * after a crash, a broken network or an interrupted unmount.
 */
import type { Command } from "commander";
import { givenOnly, serviceOptions, stateDirOption } from "./options.js";
import type { CommitCommandOptions, SessionsCommandOptions } from "./sessions-action.js";
import {
  checkSnapshotOptions,
  DESCRIBING,
  type SnapshotOptions,
  snapshotOptions,
  snapshotSettings,
} from "./snapshot-options.js";

export function registerSessions(program: Command): void {
  program
    .command("sessions")
    .summary("list changes that are not a snapshot yet")
    .description(
      "Lists the mount sessions kept on this machine, in use or interrupted; with --all also those that " +
        "have become a snapshot, and which.",
    )
    .option("-a, --all", "also the latest that have ended")
    .option("--json", "as JSON, for programs")
    .addOption(stateDirOption())
    .action(async (options: SessionsCommandOptions) => {
      const { printSessions } = await import("./sessions-action.js");
      printSessions(options);
    });
  const commit = program
    .command("commit")
    .summary("make the snapshot of an interrupted session")
    .description(
      "Turns an interrupted session's changes into the snapshot that its unmount would have made, " +
        "and prints its id. The region, profile and endpoint are the mount's unless given; so is what " +
        "describes the snapshot, which can be changed until it has been started.",
    )
    .argument("<session>", "from ebsmount sessions")
    .addOption(stateDirOption());
  snapshotOptions(serviceOptions(commit, "error")).action(
    async (id: string, options: CommitCommandOptions & SnapshotOptions) => {
      const given = givenOnly(commit, options, DESCRIBING);
      checkSnapshotOptions(given, false);
      const { commitSession } = await import("./sessions-action.js");
      await commitSession(id, options, snapshotSettings(given));
    },
  );
  program
    .command("discard")
    .summary("throw an interrupted session's changes away")
    .description("Throws a session's changes away, after asking.")
    .argument("<session>", "from ebsmount sessions")
    .option("-y, --yes", "do not ask")
    .addOption(stateDirOption())
    .action(async (id: string, options: { yes?: boolean; stateDir?: string }) => {
      const { discard } = await import("./sessions-action.js");
      await discard(id, options.yes ?? false, options.stateDir);
    });
}
