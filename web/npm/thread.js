// One more thread of the engine: the same module on the same memory.
addEventListener("message", async ({ data: { set, module, memory } }) => {
  const glue = await import(`./${set}.js`);
  glue.initSync({ module, memory });
  glue.help();
});
