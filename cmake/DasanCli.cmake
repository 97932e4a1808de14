# The `dasan` command. It sees the library as any other program does: through dasan.h.
find_package(CLI11 REQUIRED)
file(GLOB cli_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/bindings/cli/*.cc")
add_executable(dasan-cli ${cli_sources})
set_target_properties(dasan-cli PROPERTIES OUTPUT_NAME dasan RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}"
  BUILD_RPATH_USE_ORIGIN ON INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
target_link_libraries(dasan-cli PRIVATE dasan::dasan fmt::fmt-header-only CLI11::CLI11)
target_compile_features(dasan-cli PRIVATE cxx_std_20)
target_compile_options(dasan-cli PRIVATE -Wall -Wextra -Wconversion $<$<BOOL:${DASAN_WERROR}>:-Werror>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(DASAN_SANITIZE)
  target_compile_options(dasan-cli PRIVATE -fsanitize=${DASAN_SANITIZE})
  target_link_options(dasan-cli PRIVATE -fsanitize=${DASAN_SANITIZE})
endif()
