// The browser of the tests.

import {execFile} from 'node:child_process';
import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import {chromium} from 'playwright-core';

// launch starts a browser that trusts these authorities, and no others but those it came with. What ends it is pushed on ends, to be
// called in reverse order.
export async function launch(ends, ...roots) {
  const home = await mkdtemp(path.join(tmpdir(), 'bridgehead-browser-'));
  ends.push(() => rm(home, {recursive: true, maxRetries: 5}));
  const database = path.join(home, '.pki', 'nssdb');
  await mkdir(database, {recursive: true});
  for (const root of roots) {
    const file = path.join(home, 'root.pem');
    await writeFile(file, root);
    await promisify(execFile)('certutil', ['-d', `sql:${database}`, '-A', '-t', 'C,,', '-n', 'bridgehead', '-i', file]);
  }
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ['--disable-gpu', '--disable-quic', '--disable-sync', '--disable-background-networking', '--disable-component-update'],
    env: {...process.env, HOME: home},
  });
  ends.push(() => browser.close());
  return browser;
}
