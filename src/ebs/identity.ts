/**
 * Whose blocks these are: the service, the region and the account that requests go to, found without one
 * request (captured-request.ts). The account is named by its id where the source of the credentials tells it
 * (SSO and assumed roles do); else the access key stands for it, and a new key is another account to us.
 */
import { captureRequest } from "./captured-request.js";
import { type ClientOptions, makeClient } from "./client.js";

/** @throws what the SDK throws where it finds no region or credentials. */
export async function serviceIdentity(options: ClientOptions): Promise<string> {
  const { sdk, transport } = await makeClient(options);
  try {
    const { request, accessKeyId, region } = await captureRequest(sdk);
    const { protocol, hostname, port, path } = request;
    const { accountId } = await sdk.config.credentials();
    return JSON.stringify({
      endpoint: [protocol, hostname, port ?? "", path],
      region,
      account: accountId === undefined ? { accessKeyId } : { accountId },
    });
  } finally {
    sdk.destroy();
    await transport.close();
  }
}
