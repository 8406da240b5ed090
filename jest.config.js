/** Unit tests and the simulation need nothing but Node; adapters and scenarios talk to real servers that `scripts/test.mjs` starts. */
const shared = {
  // Not in the temporary folder, which goes with the services.
  cacheDirectory: '<rootDir>/node_modules/.cache/jest',
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' } },
    ],
  },
};

export default {
  projects: ['unit', 'simulation', 'adapters', 'scenarios', 'chaos'].map((name) => ({
    ...shared,
    displayName: name,
    testMatch: [`<rootDir>/test/${name}/**/*.test.ts`],
  })),
};
