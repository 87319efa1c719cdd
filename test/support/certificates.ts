/** Certificates for tests. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { runOk } from './tools.js';

/** Makes an authority, and certificates of a server and of a client, in `creds` of a folder, where QEMU looks for them. */
export async function makeCertificates(folder: string): Promise<void> {
  const creds = path.join(folder, 'creds');
  await mkdir(creds);
  const openssl = (...words: readonly string[]): Promise<string> =>
    runOk('openssl', words, { cwd: creds });
  const subject = (name: string): readonly string[] => ['-subj', `/CN=${name}`];
  await openssl(
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
    ...['-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', '-days', '2', ...subject('authority')],
  );
  for (const who of ['server', 'client']) {
    await writeFile(
      path.join(creds, `${who}.ext`),
      `subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=${who}Auth\n`,
    );
    await openssl(
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-keyout', `${who}-key.pem`, '-out', `${who}.csr`, ...subject('localhost')],
    );
    await openssl(
      ...['x509', '-req', '-in', `${who}.csr`, '-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem'],
      ...['-CAcreateserial', '-out', `${who}-cert.pem`, '-days', '2', '-extfile', `${who}.ext`],
    );
  }
}
