// Reads forms by busboy, which most servers on Node.js use. In and out as parse.py has it.

import { createInterface } from 'node:readline';

import busboy from 'busboy';

function read(type, body) {
  return new Promise((resolve) => {
    const models = [];
    const fail = (error) => resolve({ models, error: String(error) });
    try {
      const parser = busboy({ headers: { 'content-type': type } });
      parser.on('field', (name, value) => {
        if (name === 'model') models.push(Buffer.from(value).toString('hex'));
      });
      parser.on('file', (name, stream) => {
        if (name === 'model') models.push('file');
        stream.on('error', fail).resume();
      });
      parser.on('close', () => resolve({ models, error: null }));
      parser.on('error', fail);
      parser.end(body);
    } catch (error) {
      fail(error);
    }
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const { type, body } = JSON.parse(line);
  console.log(JSON.stringify(await read(type, Buffer.from(body, 'hex'))));
}
