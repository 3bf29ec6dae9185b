/**
 * onnxruntime-node's install script asks this module to set up a proxy before it looks whether it shall download the CUDA
 * provider. Here it hears "skip" unless the user said something else: see README.md beside this folder.
 */
exports.bootstrap = () => {
  const said = [
    "ONNXRUNTIME_NODE_INSTALL",
    "npm_config_onnxruntime_node_install",
    "ONNXRUNTIME_NODE_INSTALL_CUDA",
    "npm_config_onnxruntime_node_install_cuda",
  ];
  if (said.every((name) => process.env[name] === undefined)) process.env.ONNXRUNTIME_NODE_INSTALL = "skip";
};
