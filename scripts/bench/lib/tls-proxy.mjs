/**
 * TLS in front of the endpoint, as the real service has it: haproxy with HTTP/1.1 and a leaf certificate
 * of a CA that is made for this run. Clients trust that CA beside the system's whole bundle, as users
 * have it, because loading the bundle and finding a CA in it cost processor time too.
 */
import { appendFileSync, copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { env, must, scratch, startProcess, until } from "./rig.mjs";

const SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt";

/**
 * Starts haproxy, and lets every process that starts from now on trust it: ebsmount by AWS_CA_BUNDLE,
 * coldsnap (rustls) by SSL_CERT_FILE, Node's own TLS, which only the bare SDK uses, by NODE_EXTRA_CA_CERTS (rig.mjs).
 * @param upstreamUrl the endpoint's, over plain HTTP.
 */
export async function startTlsProxy(upstreamUrl) {
  const folder = join(scratch, "tls");
  const { ca, bundle, leaf } = makeCertificates(folder);
  const port = await freePort();
  const config = join(folder, "haproxy.cfg");
  writeFileSync(config, configOf(leaf, port, new URL(upstreamUrl).host));
  const { pid } = startProcess("haproxy", ["-db", "-q", "-f", config], join(folder, "haproxy.log"));
  await until("haproxy listens", () => canConnect(port));
  Object.assign(env, {
    AWS_CA_BUNDLE: bundle,
    SSL_CERT_FILE: bundle,
    BENCH_CA: ca,
  });
  return { url: `https://127.0.0.1:${port}`, pid };
}

/**
 * bufsize: a quarter of the default's system calls for each body. No logging; ciphers as haproxy has
 * them. The endpoint keeps idle connections for 120 s and haproxy for 5 s, so none closes under a request.
 */
function configOf(leaf, port, upstream) {
  return `global
  nbthread 2
  maxconn 2000
  tune.bufsize 65536
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  option http-keep-alive
  timeout connect 5s
  timeout client 120s
  timeout server 120s
frontend tls
  bind 127.0.0.1:${port} ssl crt ${leaf} alpn http/1.1
  default_backend endpoint
backend endpoint
  server endpoint ${upstream}
`;
}

/** RSA with 2048 bits, as AWS's own endpoints have it. */
function makeCertificates(folder) {
  mkdirSync(folder);
  const path = (name) => join(folder, name);
  const key = ["-newkey", "rsa:2048", "-nodes"];
  const [caKey, ca] = [path("ca.key"), path("ca.pem")];
  const caArgs = ["-x509", ...key, "-keyout", caKey, "-out", ca, "-days", "2"];
  must("openssl", ["req", ...caArgs, "-subj", "/CN=ebsmount bench CA"]);
  const [request, certificate, leafKey] = [path("leaf.csr"), path("leaf.crt"), path("leaf.key")];
  const leafArgs = [...key, "-keyout", leafKey, "-out", request, "-subj", "/CN=127.0.0.1"];
  must("openssl", ["req", "-new", ...leafArgs]);
  const extensions = path("leaf.ext");
  writeFileSync(
    extensions,
    "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
  );
  const signArgs = ["-CA", ca, "-CAkey", caKey, "-CAcreateserial", "-extfile", extensions];
  must("openssl", ["x509", "-req", "-in", request, "-out", certificate, "-days", "2", ...signArgs]);
  const leaf = path("leaf.pem");
  must("sh", ["-c", 'cat "$1" "$2" > "$3"', "sh", certificate, leafKey, leaf]);
  const bundle = path("bundle.pem");
  if (!existsSync(SYSTEM_BUNDLE)) {
    throw new Error(`${SYSTEM_BUNDLE} is not there: install Debian's ca-certificates.`);
  }
  copyFileSync(SYSTEM_BUNDLE, bundle);
  appendFileSync(bundle, must("cat", [ca]));
  return { ca, bundle, leaf };
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function canConnect(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => resolve(true));
    socket.on("error", () => resolve(false));
    socket.on("connect", () => socket.destroy());
  });
}
