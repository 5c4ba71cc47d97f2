// An avatar service with Fastify, sharp, S3 and Redis, of the kind that teams write: one decode shared
// by all sizes, and two processes.
import cluster from 'node:cluster';
import { randomUUID } from 'node:crypto';
import { Agent } from 'node:http';
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import multipart from '@fastify/multipart';
import Fastify from 'fastify';
import { Redis } from 'ioredis';
import sharp from 'sharp';

const EDGES = { full: 1024, large: 512, medium: 256, small: 128, thumbnail: 64 };
const MAX_BYTES = 5 * 2 ** 20;
const [MIN_EDGE_PX, MAX_EDGE_PX] = [100, 4096];
const FORMATS = new Set(['jpeg', 'png', 'webp', 'gif']);
const { PORT, S3_ENDPOINT, S3_BUCKET, AWS_REGION, REDIS_URL } = process.env;

if (cluster.isPrimary) {
  for (let worker = 0; worker < 2; worker += 1) cluster.fork();
} else {
  await serve();
}

async function serve() {
  // One thread per picture, because pictures are processed in parallel. No cache, because no upload
  // comes twice.
  sharp.concurrency(1);
  sharp.cache(false);
  const s3 = new S3Client({
    endpoint: S3_ENDPOINT,
    region: AWS_REGION,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: { httpAgent: new Agent({ keepAlive: true, maxSockets: 64 }) },
  });
  const redis = new Redis(REDIS_URL);
  const app = Fastify({ bodyLimit: MAX_BYTES + 2 ** 16 });
  await app.register(multipart, { limits: { fileSize: MAX_BYTES, files: 1 } });

  app.get('/health', async () => ({ status: 'ok' }));

  app.post('/users/:userId/avatar', async (request, reply) => {
    const part = await request.file();
    if (!part) return reply.code(400).send({ error: 'missing file' });
    const bytes = await part.toBuffer(); // 413 beyond the limit
    const picture = await check(bytes);
    const avatarId = randomUUID();
    const keys = await render(bytes, async (name, body) => {
      const key = `public/avatars/${avatarId}/${name}.webp`;
      await s3.send(new PutObjectCommand({
        Bucket: S3_BUCKET,
        Key: key,
        Body: body,
        ContentType: 'image/webp',
        CacheControl: 'public, max-age=31536000, immutable',
      }));
      return [name, `${S3_ENDPOINT}/${S3_BUCKET}/${key}`];
    });
    const { userId } = request.params;
    const uploadedAt = new Date().toISOString();
    await redis.hset(`avatar:${userId}`, {
      avatar_id: avatarId, ...picture, bytes: bytes.length, uploaded_at: uploadedAt,
    });
    return {
      user_id: userId, avatar_id: avatarId, variants: Object.fromEntries(keys), uploaded_at: uploadedAt,
    };
  });

  await app.listen({ host: '127.0.0.1', port: Number(PORT) });
}

// The bytes decide the format, never the name.
async function check(bytes) {
  const { format, width, height } = await sharp(bytes).metadata().catch(() => {
    throw refusal(400, 'not a picture that is accepted');
  });
  if (!FORMATS.has(format)) throw refusal(400, 'not a picture that is accepted');
  if (![width, height].every((edge) => MIN_EDGE_PX <= edge && edge <= MAX_EDGE_PX)) {
    throw refusal(400, `${width} x ${height} px; 100 to 4096 px a side`);
  }
  return { format, width, height };
}

// Makes all sizes, and stores each one as soon as it is encoded.
async function render(bytes, put) {
  const { data, info } = await sharp(bytes, { limitInputPixels: MAX_EDGE_PX ** 2 })
    .autoOrient()
    .resize(EDGES.full, EDGES.full, { fit: 'cover', withoutEnlargement: true })
    .raw()
    .toBuffer({ resolveWithObject: true })
    .catch(() => {
      throw refusal(422, 'the picture is corrupt');
    });
  const raw = { width: info.width, height: info.height, channels: info.channels };
  return Promise.all(Object.entries(EDGES).map(async ([name, edge]) => {
    const side = Math.min(edge, info.width, info.height);
    const body = await sharp(data, { raw })
      .resize(side, side)
      .webp({ quality: 80, effort: 4 })
      .toBuffer();
    return put(name, body);
  }));
}

function refusal(statusCode, message) {
  return Object.assign(new Error(message), { statusCode });
}
