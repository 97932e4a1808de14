# How every dasan source is compiled. Private to the project: nothing here reaches a consumer.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

# -O2: the kernels say themselves what to unroll, and -O3 takes several times as long over them.
string(REPLACE "-O3" "-O2" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")

add_library(dasan_options INTERFACE)
target_compile_features(dasan_options INTERFACE cxx_std_20 c_std_99)
target_include_directories(dasan_options INTERFACE
  "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}/engine/include")
# For the host compiler alone: nvcc has options of its own (DasanCuda.cmake).
function(dasan_host_options)
  target_compile_options(dasan_options INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${ARGN}>")
endfunction()
# -ffp-contract=off: one rounding per written operation; results must not depend on what a compiler
# fuses. -Wno-restrict: GCC 12 reports false overlaps in "literal" + std::string at -O3.
dasan_host_options(-Wall -Wextra -Wconversion -fvisibility=hidden -ffp-contract=off
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_compile_definitions(dasan_options INTERFACE "DASAN_VERSION_STRING=\"${PROJECT_VERSION}\"")
if(DASAN_WERROR)
  dasan_host_options(-Werror)
endif()
if(DASAN_SANITIZE)
  dasan_host_options(-fsanitize=${DASAN_SANITIZE} -fno-omit-frame-pointer -g1)
  if(DASAN_SANITIZE MATCHES "undefined")
    dasan_host_options(-fno-sanitize-recover=undefined)
  endif()
  target_link_options(dasan_options INTERFACE -fsanitize=${DASAN_SANITIZE})
endif()
