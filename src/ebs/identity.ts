/**
 * Whose blocks these are: the service, the region and the account that requests go to, found without
 * one request. The SDK is let build and sign a list call, which is looked at in place of being sent;
 * so every way in which the SDK can be told of endpoint, region and credentials counts here as there.
 * The account is named by its id where the source of the credentials tells it (SSO and assumed roles
 * do); else the access key stands for it, and a new key is another account to us.
 */
import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { type ClientOptions, makeClient } from "./client.js";

class Captured extends Error {}

/** @throws what the SDK throws where it finds no region or credentials. */
export async function serviceIdentity(options: Omit<ClientOptions, "sockets">): Promise<string> {
  const { sdk } = makeClient({ ...options, sockets: 1 });
  let request: unknown;
  sdk.middlewareStack.add(
    () => async (args) => {
      request = args.request;
      throw new Captured();
    },
    { step: "deserialize", priority: "low", name: "ebsmountIdentity" },
  );
  try {
    await sdk.send(new ListSnapshotBlocksCommand({ SnapshotId: "snap-0" }));
  } catch (error) {
    if (request === undefined) throw error;
  } finally {
    sdk.destroy();
  }
  const sent = request as {
    readonly protocol: string;
    readonly hostname: string;
    readonly port?: number;
    readonly path: string;
    readonly headers: Record<string, string>;
  };
  const signed = /Credential=([^/,\s]+)\/\d{8}\/([^/,\s]+)\//.exec(
    sent.headers.authorization ?? sent.headers.Authorization ?? "",
  );
  if (signed === null) throw new Error("the SDK signs requests in a way that is not known");
  const { accountId } = await sdk.config.credentials();
  return JSON.stringify({
    endpoint: [sent.protocol, sent.hostname, sent.port ?? "", sent.path],
    region: signed[2],
    account: accountId === undefined ? { accessKeyId: signed[1] } : { accountId },
  });
}
