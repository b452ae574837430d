/** `ebsmount status`: what is mounted, how it is doing and what it has cost. */
import type { Command } from "commander";
import { stateDirOption } from "./options.js";

export function registerStatus(program: Command): void {
  program
    .command("status")
    .summary("list the mounts: size, cached, fetched, API calls, cost")
    .description(
      "Lists live mounts, mounts that are being committed, and stale ones with how to clear them.",
    )
    .option("--json", "as JSON, for programs")
    .addOption(stateDirOption())
    .action(async (options: { json?: boolean; stateDir?: string }) => {
      const { printStatus } = await import("./status-action.js");
      await printStatus(options.json ?? false, options.stateDir);
    });
}
