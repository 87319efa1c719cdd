{
  'variables': {
    # A sanitizer to build with: '', 'address' or 'thread' (see scripts/build-addon.mjs).
    'cowherd_sanitizer%': '',
    'zstd_library': 'node_modules/zstd-napi/deps/zstd/lib',
  },
  'targets': [
    {
      'target_name': 'zstd',
      'type': 'static_library',
      'sources': [
        # Only the C sources; the assembly variant of one loop is not worth a second tool chain.
        '<!@(node -p "[\'common\', \'compress\', \'decompress\'].flatMap((part) => require(\'fs\').readdirSync(\'<(zstd_library)/\' + part).filter((name) => name.endsWith(\'.c\')).map((name) => \'<(zstd_library)/\' + part + \'/\' + name)).join(\' \')")',
      ],
      'include_dirs': ['<(zstd_library)'],
      'direct_dependent_settings': { 'include_dirs': ['<(zstd_library)'] },
      'defines': ['ZSTD_DISABLE_ASM=1', 'ZSTD_LEGACY_SUPPORT=0', 'XXH_NAMESPACE=ZSTD_'],
      'cflags': ['-O3', '-fvisibility=hidden', '-w'],
    },
    {
      'target_name': 'cowherd',
      'dependencies': ['zstd'],
      'sources': [
        'native/addon.cc',
        'native/aligned-buffer.cc',
        'native/block-device.cc',
        'native/blocking-operation.cc',
        'native/buffer-memory.cc',
        'native/callback.cc',
        'native/codec-zlib.cc',
        'native/codec-zstd.cc',
        'native/compare-data.cc',
        'native/copy-data.cc',
        'native/copy-order.cc',
        'native/descriptor.cc',
        'native/descriptor-message.cc',
        'native/descriptor-watch.cc',
        'native/detached-thread.cc',
        'native/environment.cc',
        'native/file.cc',
        'native/file-facts.cc',
        'native/fuse.cc',
        'native/inline-reads.cc',
        'native/mapped-memory.cc',
        'native/oldest-libc.cc',
        'native/read-helper.cc',
        'native/request.cc',
        'native/restart.cc',
        'native/ring.cc',
        'native/sector-cipher.cc',
        'native/segments.cc',
        'native/thread-affinity.cc',
        'native/thread-pool.cc',
        'native/uring.cc',
        'native/write-gate.cc',
        'native/zero-scan.cc',
      ],
      'include_dirs': ['node_modules/node-addon-api'],
      # In an environment that is being stopped no exception can be thrown, and none is needed.
      'defines': ['NAPI_VERSION=8', 'NAPI_DISABLE_CPP_EXCEPTIONS', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS', '_GNU_SOURCE', '_FILE_OFFSET_BITS=64'],
      'cflags': ['-O3', '-fvisibility=hidden', '-Wall', '-Wextra', '-Wno-unused-parameter', '-Wno-missing-field-initializers'],
      'cflags_cc!': ['-std=gnu++14', '-std=gnu++20', '-fno-exceptions'],
      'cflags_cc': ['-std=gnu++17'],
      # The pool's threads outlive any one environment, so the code must never be unmapped.
      'ldflags': [
        '-Wl,-z,nodelete', '-Wl,-z,now', '-Wl,-z,relro', '-Wl,--gc-sections',
      ],
      'conditions': [
        ['cowherd_sanitizer==""', {
          # Of the system the C library alone is needed, none newer than Node needs itself.
          'ldflags': [
            '-static-libstdc++', '-static-libgcc', '-Wl,--exclude-libs,ALL',
            '-Wl,--wrap=pthread_create', '-Wl,--wrap=pthread_detach', '-Wl,--wrap=pthread_once', '-Wl,--wrap=__pthread_key_create',
            '-Wl,--wrap=pthread_sigmask', '-Wl,--wrap=dlsym', '-Wl,--wrap=fstat64',
          ],
        }, {
          # A sanitizer has functions of its own in their place.
          'sources!': ['native/oldest-libc.cc'],
        }],
      ],
    },
  ],
  'target_defaults': {
    'conditions': [
      ['cowherd_sanitizer!=""', {
        'cflags': ['-fsanitize=<(cowherd_sanitizer)', '-fno-omit-frame-pointer', '-g'],
        'ldflags': ['-fsanitize=<(cowherd_sanitizer)'],
      }],
    ],
  },
}
