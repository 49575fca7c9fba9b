// Everybody as tiles, in groups, every one at its place. To come.
export const mount = () => ({ draw() {}, shown: () => [], move: () => null, group: () => [], destroy() {} });
