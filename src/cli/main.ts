#!/usr/bin/env node
/**
 * The command line. Each command's file declares its options and loads what does the work only when
 * it is called, so `ebsmount --help` reads commander and these declarations and nothing else.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { answerSignals, report } from "./errors.js";
import { registerExport } from "./export.js";
import { registerImport } from "./import.js";
import { registerCreate, registerMount } from "./mount.js";
import { registerServe } from "./serve.js";
import { registerSessions } from "./sessions.js";
import { registerStatus } from "./status.js";
import { registerUnmount } from "./unmount.js";

function version(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

answerSignals();

// A variable that is set to nothing is one that is not set, as for the AWS tools.
for (const [name, value] of Object.entries(process.env)) {
  if (name.startsWith("EBSMOUNT_") && value === "") delete process.env[name];
}
// Commander takes any value of a flag's variable for yes.
if (/^(?:0|no|off|false)$/i.test(process.env.EBSMOUNT_NO_WRITEBACK ?? "")) {
  delete process.env.EBSMOUNT_NO_WRITEBACK;
}

let debug = Boolean(process.env.EBSMOUNT_DEBUG);

const program = new Command("ebsmount")
  .description("Amazon EBS snapshots as files: mount one, read it lazily, write it into a new one.")
  .version(version())
  // Settings that the commands registered below take over.
  .exitOverride()
  .showHelpAfterError("(ebsmount --help, or ebsmount COMMAND --help, tells more)")
  .configureOutput({
    outputError: (text, write) => write(text.replace(/^error: /, "ebsmount: ")),
  })
  .hook("preAction", (_program, command) => {
    if (command.opts().logLevel === "debug") debug = true;
  });

registerMount(program);
registerUnmount(program);
registerStatus(program);
registerExport(program);
registerImport(program);
registerCreate(program);
registerSessions(program);
registerServe(program);

// Whoever reads our output may stop reading (| head): nothing is left to say to them.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 1 : report(error, debug));
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Help that was asked for is success; everything else commander throws is a usage error.
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    // Not a mere exit code: a failed command may leave a connection open behind it.
    process.exit(report(error, debug));
  }
}
