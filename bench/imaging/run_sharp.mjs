// sharp: `node run_sharp.mjs shared|clone webp|jpeg PICTURE`. See compare.py for the protocol.
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import sharp from 'sharp';

const EDGES = { full: 1024, large: 512, medium: 256, small: 128, thumbnail: 64 };
const [form, format, picture] = process.argv.slice(2);
sharp.concurrency(1);
sharp.cache(false);

const status = (key) =>
  Number(readFileSync('/proc/self/status', 'utf8').match(new RegExp(`${key}:\\s+(\\d+)`))[1]);
const encode = (image) =>
  (format === 'webp' ? image.webp({ quality: 80, effort: 4 }) : image.jpeg({ quality: 82 })).toBuffer();

async function upload(bytes) {
  const files = {};
  const square = (image, edge) => image.resize(edge, edge, { fit: 'cover', withoutEnlargement: true });
  if (form === 'clone') {
    const base = sharp(bytes).autoOrient();
    for (const [name, edge] of Object.entries(EDGES)) files[name] = await encode(square(base.clone(), edge));
    return files;
  }
  let { data, info } = await square(sharp(bytes).autoOrient(), EDGES.full)
    .raw().toBuffer({ resolveWithObject: true });
  for (const [name, edge] of Object.entries(EDGES)) {
    const raw = { width: info.width, height: info.height, channels: info.channels };
    files[name] = await encode(sharp(data, { raw }).resize(edge, edge));
  }
  return files;
}

const bytes = readFileSync(picture);
const idle = status('VmRSS');
for await (const line of createInterface({ input: process.stdin })) {
  const before = process.cpuUsage();
  const files = await upload(bytes);
  const { user, system } = process.cpuUsage(before);
  const size = Object.values(files).reduce((sum, file) => sum + file.length, 0);
  for (const [name, file] of Object.entries(files)) {
    if (line) writeFileSync(`${line}/${name}.${format}`, file);
  }
  console.log((user + system) / 1000, (status('VmHWM') - idle) / 1024, size / 1024);
}
